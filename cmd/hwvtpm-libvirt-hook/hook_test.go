// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test's program be this program, and a backend.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "hook", "supervise":
			main()
		case "backend":
			os.Exit(fakeBackend(os.Args[2:]))
		}
	}
	os.Exit(m.Run())
}

// fakeBackend listens where a backend would, and says that it is ready. The slot
// "damaged" can't be used.
func fakeBackend(args []string) int {
	value := func(flag string) string { return args[slices.Index(args, flag)+1] }
	if value("--slot") == "damaged" {
		fmt.Fprintln(os.Stderr, "vhost-user-vtpm: stored state is corrupt")
		return 3
	}
	if _, err := os.ReadFile(value("--slot-key")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	path := value("--socket-path")
	os.Remove(path)
	if _, err := net.Listen("unix", path); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	os.WriteFile(path+".pid", fmt.Appendf(nil, "%d", os.Getpid()), 0o600)
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	conn, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		return 1
	}
	conn.Write([]byte("READY=1"))
	<-end
	return 0
}

// hooks is a host on which the hook is installed.
type hooks struct {
	*testing.T
	dir string
}

func newHooks(t *testing.T, slots ...string) hooks {
	t.Helper()
	// A socket's path must be short.
	dir, err := os.MkdirTemp("", "hook-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("#!/bin/sh\nexec %s backend \"$@\"\n", self)
	if err := os.WriteFile(filepath.Join(dir, "backend"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "keys"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, slot := range slots {
		if err := os.WriteFile(filepath.Join(dir, "keys", slot+".key"), []byte("key of "+slot), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return hooks{t, dir}
}

// call is what libvirt does for an event. It returns when nobody has the hook's
// output open any more.
func (h hooks) call(id, slot, operation, sub string) (stdout, stderr string, err error) {
	h.Helper()
	u, err := user.Current()
	if err != nil {
		h.Fatal(err)
	}
	g, err := user.LookupGroupId(u.Gid)
	if err != nil {
		h.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		h.Fatal(err)
	}
	cmd := exec.Command(self, "hook", "--systemd", "off", "--user", u.Username, "--group", g.Name,
		"--run-dir", h.dir, "--key-dir", h.dir+"/keys", "--log-dir", h.dir+"/log", "--backend", h.dir+"/backend",
		"--", "vm", operation, sub, "-")
	metadata := ""
	if slot != "" {
		metadata = "<h:vtpm xmlns:h='" + namespace + "' slot='" + slot + "'/>"
	}
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0") // or each call takes a second more
	cmd.Stdin = strings.NewReader(strings.Replace(domainXML(metadata), uuid, id, 1))
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	if out.Len() > 0 {
		h.Errorf("%s %s: libvirt would take this for XML: %q", operation, sub, out.String())
	}
	return out.String(), errs.String(), err
}

func (h hooks) must(id, slot, operation, sub string) {
	h.Helper()
	if _, stderr, err := h.call(id, slot, operation, sub); err != nil {
		h.Fatalf("%s %s of slot %q: %v: %s", operation, sub, slot, err, stderr)
	}
}

// backend is the pid of the backend that serves the slot's socket.
func (h hooks) backend(slot string) string {
	path := filepath.Join(h.dir, "vm", slot, socketName)
	conn, err := net.Dial("unix", path)
	if err != nil {
		return ""
	}
	conn.Close()
	pid, _ := os.ReadFile(path + ".pid")
	return string(pid)
}

func (h hooks) left(kind string) []string {
	found, _ := filepath.Glob(filepath.Join(h.dir, kind, "*"))
	return slices.DeleteFunc(found, func(path string) bool { return strings.HasSuffix(path, ".lock") })
}

func TestHookLeavesOtherDomainsAlone(t *testing.T) {
	h := newHooks(t)
	for _, event := range []string{"prepare begin", "start begin", "started begin", "stopped end", "release end", "migrate begin", "restore begin", "reconnect begin"} {
		operation, sub, _ := strings.Cut(event, " ")
		h.must(uuid, "", operation, sub)
	}
	if found := h.left("*"); len(found) > 0 {
		t.Errorf("the hook left %q", found)
	}
}

func TestHookStartsAndStops(t *testing.T) {
	h := newHooks(t, "vm1")
	for range 2 {
		h.must(uuid, "vm1", "prepare", "begin")
		pid := h.backend("vm1")
		if pid == "" {
			t.Fatal("no backend listens after prepare")
		}
		for _, event := range []string{"start begin", "started begin", "stopped end"} {
			operation, sub, _ := strings.Cut(event, " ")
			h.must(uuid, "vm1", operation, sub)
		}
		if h.backend("vm1") != pid {
			t.Error("another event than release changed the backend")
		}
		h.must(uuid, "vm1", "release", "end")
		if h.backend("vm1") != "" {
			t.Error("the backend still listens after release")
		}
		if found := slices.Concat(h.left("vm"), h.left("hook")); len(found) > 0 {
			t.Errorf("release left %q", found)
		}
	}
	h.must(uuid, "vm1", "release", "end")
}

func TestHookKeepsASlotForOneDomain(t *testing.T) {
	h := newHooks(t, "vm1")
	h.must(uuid, "vm1", "prepare", "begin")
	defer h.must(uuid, "vm1", "release", "end")
	pid := h.backend("vm1")
	other := strings.Replace(uuid, "4", "5", 1)
	if _, stderr, err := h.call(other, "vm1", "prepare", "begin"); err == nil || !strings.Contains(stderr, uuid) {
		t.Errorf("prepare of a second domain: %v, %q; want a refusal that names the first", err, stderr)
	}
	h.must(other, "vm1", "release", "end") // libvirt releases what did not start
	if got := h.backend("vm1"); got != pid {
		t.Errorf("the first domain's backend %s was replaced by %q", pid, got)
	}
}

func TestHookSaysWhatIsWrong(t *testing.T) {
	h := newHooks(t, "damaged")
	for slot, want := range map[string]string{
		"damaged": "stored state is corrupt",
		"unknown": "vtpmctl slot create",
		"a b":     "can't be one",
	} {
		_, stderr, err := h.call(uuid, slot, "prepare", "begin")
		if err == nil || !strings.Contains(stderr, want) {
			t.Errorf("slot %q: %v, %q; want an error with %q", slot, err, stderr, want)
		}
	}
	h.must(uuid, "damaged", "release", "end")
	if found := slices.Concat(h.left("vm"), h.left("hook")); len(found) > 0 {
		t.Errorf("release left %q", found)
	}
}

func TestSupervisorStartsADeadBackendAgain(t *testing.T) {
	h := newHooks(t, "vm1")
	h.must(uuid, "vm1", "prepare", "begin")
	defer h.must(uuid, "vm1", "release", "end")
	first := h.backend("vm1")
	pid, err := strconv.Atoi(first)
	if err == nil {
		err = syscall.Kill(pid, syscall.SIGKILL)
	}
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if pid := h.backend("vm1"); pid != "" && pid != first {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("no second backend listens")
		}
	}
}

// TestSupervisorNeedsItsHook: one whose hook was killed before it noted the process
// starts nothing, since nobody would end it.
func TestSupervisorNeedsItsHook(t *testing.T) {
	h := newHooks(t, "vm1")
	for _, dir := range []string{"vm/vm1", "hook"} {
		if err := os.MkdirAll(filepath.Join(h.dir, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(h.dir, "hook", "vm1.key"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, "supervise", "--slot", "vm1", "--run-dir", h.dir, "--backend", h.dir+"/backend")
	cmd.ExtraFiles = []*os.File{os.Stdout}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	out, err := cmd.CombinedOutput() // its standard input is empty
	if err == nil || !strings.Contains(string(out), "noted") {
		t.Errorf("%v, %q, want an error", err, out)
	}
	if _, err := os.Stat(filepath.Join(h.dir, "vm", "vm1", socketName+".pid")); err == nil {
		t.Error("a backend was started")
	}
}
