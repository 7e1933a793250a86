// SPDX-License-Identifier: Apache-2.0

package unixsock

import (
	"os"
	"path/filepath"
	"testing"
)

func TestListenReplacesOnlyADeadSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := Listen(Stream, path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket mode = %v, %v, want 0600", info.Mode(), err)
	}
	if second, err := Listen(Stream, path, 0o600); err == nil {
		second.Close()
		t.Error("Listen took over a living socket")
	}
	ln.SetUnlinkOnClose(false) // as if killed
	ln.Close()
	again, err := Listen(Stream, path, 0o660)
	if err != nil {
		t.Fatalf("Listen over a dead socket: %v", err)
	}
	again.Close()
	if _, err := os.Stat(path); err == nil {
		t.Error("the socket is still there after Close")
	}
}

func TestListenKeepsOtherFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if ln, err := Listen(Stream, path, 0o600); err == nil {
		ln.Close()
		t.Error("Listen replaced a regular file")
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "data" {
		t.Errorf("the file holds %q, %v", b, err)
	}
}
