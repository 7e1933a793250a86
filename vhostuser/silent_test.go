// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"context"
	"net"
	"testing"

	"hwvtpm/vhostuser"
	"hwvtpm/vhostuser/vhostusertest"
)

// TestSilentConnection: who hangs up before the first message was no front-end.
func TestSilentConnection(t *testing.T) {
	peers := make(chan vhostuser.Peer, 4)
	path, _ := serve(t, vhostuser.Config{
		Device: &echo{},
		OnConnect: func(_ context.Context, p vhostuser.Peer) error {
			peers <- p
			return nil
		},
	})
	for range 3 {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	for range 40 { // and who stays and says nothing keeps nobody away
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	dial(t, path, vhostusertest.Options{}).Close()
	if n := len(peers); n != 1 {
		t.Errorf("OnConnect was called %d times, want once, for the front-end that spoke", n)
	}
}
