// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hwvtpm/internal/cli/clitest"
)

// The unit's command line, with the flags that its comment shows, is one that serves,
// and systemd finds nothing wrong with the unit.
func TestUnit(t *testing.T) {
	text, err := os.ReadFile("vtpm-control.service")
	if err != nil {
		t.Fatal(err)
	}
	command, shown := clitest.UnitFlags(t, string(text), "CONTROL_FLAGS")
	args := command + shown
	inv, err := parse(&console{out: io.Discard, err: io.Discard, getenv: os.Getenv}, strings.Fields(args))
	if err == nil {
		err = inv.checkServe()
	}
	if err != nil || inv.dir != defaultDir {
		t.Fatalf("%s: %v", args, err)
	}
	path := filepath.Join(t.TempDir(), "vtpm-control.service")
	unit := strings.ReplaceAll(string(text), "@BINDIR@/vtpm-control", "/bin/true")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(unit, "hwvtpm-control\n", "root\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	clitest.VerifyUnits(t, "", path)
}

// The unit's manager is told when operators and hosts are answered, and when that ends.
func TestReadiness(t *testing.T) {
	dir := newDir(t)
	path := filepath.Join(filepath.Dir(dir), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	told := func(want string) {
		t.Helper()
		if err := manager.SetReadDeadline(time.Now().Add(hang)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 64)
		if n, err := manager.Read(b); err != nil || string(b[:n]) != want {
			t.Fatalf("the manager was told %q, %v; want %s", b[:n], err, want)
		}
	}
	t.Setenv("NOTIFY_SOCKET", path)
	url, stop := serve(t, dir)
	told("READY=1")
	if out := must(t, dir, "list", "hosts"); out == "" {
		t.Error("the operators' door says nothing")
	}
	resp, err := client(t, dir).Get(url + "/v1/ca")
	if err != nil {
		t.Fatalf("ready, and the hosts' door is shut: %v", err)
	}
	resp.Body.Close()
	stop()
	told("STOPPING=1")
}
