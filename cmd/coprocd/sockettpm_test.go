// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"io"
	"net"
	"path/filepath"
	"testing"
)

// TestSocketTPM: what is no response ends the connection, and the next command
// gets a new one, so that it is never answered by what was meant for another.
func TestSocketTPM(t *testing.T) {
	good := []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0, 0, 1, 2}
	for _, tc := range []struct {
		name   string
		answer []byte
	}{
		{"nothing", nil},
		{"half a header", good[:5]},
		{"half a body", good[:11]},
		{"size of less than a header", []byte{0x80, 0x01, 0, 0, 0, 9, 0, 0, 0, 0}},
		{"size of 4 GiB", []byte{0x80, 0x01, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "tpm")
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() { // the first connection is bad, the second good
				for _, answer := range [][]byte{tc.answer, good} {
					c, err := l.Accept()
					if err != nil {
						return
					}
					io.ReadFull(c, make([]byte, 4))
					c.Write(answer)
					c.Close()
				}
			}()
			tpm, err := openHostTPM("swtpm:" + path)
			if err != nil {
				t.Fatal(err)
			}
			defer tpm.Close()
			if rsp, err := tpm.Send([]byte("cmd1")); err == nil {
				t.Errorf("response %x, want an error", rsp)
			}
			if rsp, err := tpm.Send([]byte("cmd2")); err != nil || !bytes.Equal(rsp, good) {
				t.Errorf("next response %x, %v", rsp, err)
			}
		})
	}
}
