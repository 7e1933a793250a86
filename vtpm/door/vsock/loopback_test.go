// SPDX-License-Identifier: Apache-2.0

//go:build vsock_loopback

package vsock

import (
	"context"
	"errors"
	"io"
	"os"
	"testing"
	"time"
)

// hang is when a test gives up.
const hang = time.Minute

// The loopback is a module of the kernel (vsock_loopback), which few kernels have
// loaded. TestVsock of guest/vmtest runs these tests in one that has.
func TestLoopback(t *testing.T) {
	l, err := Listen(Addr{CIDLocal, PortAny})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		defer c.Close()
		if peer := c.(*Conn).Peer(); peer.CID != CIDLocal {
			t.Errorf("who connects is %v", peer)
		}
		_, err = io.Copy(c, c)
		done <- err
	}()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	c, err := Dial(ctx, l.Addr().(Addr))
	if err != nil {
		t.Fatal(err)
	}
	if c.RemoteAddr() != l.Addr() {
		t.Errorf("connected to %v, want %v", c.RemoteAddr(), l.Addr())
	}
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
	if err := c.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a read after its deadline: %v", err)
	}
	c.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
