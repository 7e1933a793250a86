// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The engine gets its own descriptors and no others: neither QEMU's socket,
// which leads to guest memory, nor what the launcher has left open.
func TestEngineInheritsNothing(t *testing.T) {
	dir := built.Dir(t)
	engine := filepath.Join(t.TempDir(), "engine")
	script := "#!/bin/sh\nfor f in 5 6 7; do if [ -e /proc/$$/fd/$f ]; then echo leaked $f >&2; fi; done\necho looked >&2\n"
	if err := os.WriteFile(engine, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	socket, err := ln.File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	cmd := exec.Command(filepath.Join(dir, "vhost-user-vtpm"), "--fd", "7",
		"--coproc", "sim:"+stateDir(t), "--engine", engine, "--reset-policy", "keep")
	cmd.ExtraFiles = []*os.File{null, null, null, null, socket} // 3 to 7
	out, _ := cmd.CombinedOutput()                              // the script is no engine
	if !strings.Contains(string(out), "looked") || strings.Contains(string(out), "leaked") {
		t.Errorf("the engine should find none of 5 to 7 open:\n%s", out)
	}
}
