// SPDX-License-Identifier: Apache-2.0

package tpmlink

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net"
	"path/filepath"
	"testing"
)

// TestBrokenAnswers: what is no response ends the connection, and the next command
// gets a new one, so that it is never answered by what was meant for another.
func TestBrokenAnswers(t *testing.T) {
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
			tpm, err := Open("swtpm:" + path)
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

// TestTakesTurns: a TPM that serves one client at a time serves two links, whether
// the first lets go of it or only has nothing to ask.
func TestTakesTurns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tpm")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			for cmd := make([]byte, 4); ; {
				if _, err := io.ReadFull(c, cmd); err != nil {
					break
				}
				c.Write(append([]byte{0x80, 0x01, 0, 0, 0, 14, 0, 0, 0, 0}, cmd...))
			}
			c.Close()
		}
	}()
	var links [2]*Link
	for i := range links {
		if links[i], err = Open("swtpm:" + path); err != nil {
			t.Fatal(err)
		}
		defer links[i].Close()
	}
	for n := range 20 {
		for i, link := range links {
			cmd := []byte{byte(n), byte(i), 0, 0}
			if rsp, err := link.Send(cmd); err != nil || !bytes.HasSuffix(rsp, cmd) {
				t.Fatalf("command %d of link %d: %x, %v", n, i, rsp, err)
			}
			if n < 10 {
				link.Release()
			}
		}
	}
	for range 2 {
		if err := links[0].Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	links[0].Release()
	if _, err := links[0].Send([]byte("cmd1")); !errors.Is(err, ErrClosed) {
		t.Errorf("Send after Close: %v", err)
	}
}

func TestCheck(t *testing.T) {
	for address, good := range map[string]bool{
		"device:/dev/tpmrm0": true, "swtpm:/run/tpm": true, "swtpm:localhost:2321": true, "swtpm:[::1]:2321": true,
		"": false, "/dev/tpmrm0": false, "device:": false, "device:tpmrm0": false, "swtpm:": false, "swtpm:tpm": false, "mssim:localhost:1": false,
	} {
		if err := Check(address); (err == nil) != good {
			t.Errorf("Check(%q) = %v, want good %v", address, err, good)
		}
	}
	if _, err := Open("device:" + filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open of a device that is not there: %v", err)
	}
}
