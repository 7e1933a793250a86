// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// guard bounds waits that end at once unless something hangs.
const guard = time.Minute

func testRig(t *testing.T) *Rig {
	t.Helper()
	rig, err := NewRig(&Env{Accel: TCG}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rig.Close(); err != nil {
			t.Error(err)
		}
	})
	return rig
}

func TestHasVirtualization(t *testing.T) {
	for text, want := range map[string]bool{
		"processor\t: 0\nflags\t\t: fpu vmx sse\n":            true,
		"flags\t\t: fpu svm\n":                                true,
		"flags\t\t: fpu sse svm_lock\nvmx flags\t: vnmi\n":    false,
		"model name\t: vmx svm machine\nflags\t\t: fpu sse\n": false,
		"": false,
		"flags: fpu\nbugs: vmx\nflags: never looked at svm\n\n": false,
	} {
		if got := hasVirtualization(text); got != want {
			t.Errorf("hasVirtualization(%q) = %v, want %v", text, got, want)
		}
	}
}

func TestChooseAccelObeysTheEnvironment(t *testing.T) {
	for value, ok := range map[string]bool{"tcg": true, "kvm": true, "hvf": false} {
		t.Setenv("HWVTPM_ACCEL", value)
		got, err := chooseAccel()
		if (err == nil) != ok || ok && string(got) != value {
			t.Errorf("chooseAccel() with HWVTPM_ACCEL=%s = %q, %v", value, got, err)
		}
	}
}

func TestFindKnowsTheWorkTree(t *testing.T) {
	env, err := Find()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(env.Top, "go.mod")); err != nil {
		t.Errorf("Find().Top = %s: %v", env.Top, err)
	}
	t.Chdir(t.TempDir())
	if _, err := Find(); err == nil {
		t.Error("Find() outside the work tree = nil error")
	}
}

func TestProcessLogsAndReportsItsEnd(t *testing.T) {
	log := filepath.Join(t.TempDir(), "p.log")
	p, err := startProcess("child", log, []string{"WORD=hello"}, "sh", "-c", "echo $WORD; exit 3")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), guard)
	defer cancel()
	if err := p.wait(ctx); err == nil || !strings.Contains(err.Error(), "hello") {
		t.Errorf("wait() = %v, want the exit status and the end of the log", err)
	}
	if p.alive() || p.cmd.ProcessState.ExitCode() != 3 {
		t.Errorf("alive %v, exit code %d, want a dead process and 3", p.alive(), p.cmd.ProcessState.ExitCode())
	}
	p.kill() // of a dead process: nothing to do
	p.end(0)
}

func TestProcessEndKillsTheDeaf(t *testing.T) {
	log := filepath.Join(t.TempDir(), "p.log")
	p, err := startProcess("child", log, nil, "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done")
	if err != nil {
		t.Fatal(err)
	}
	for !strings.Contains(tail(log), "\n  ready") {
		if !p.alive() {
			t.Fatal("the child died")
		}
		time.Sleep(time.Millisecond)
	}
	p.end(50 * time.Millisecond)
	if p.alive() {
		t.Error("a process that ignores SIGTERM outlived end()")
	}
	if ws := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signal() != syscall.SIGKILL {
		t.Errorf("ended by %v, want SIGKILL", ws.Signal())
	}
}

// listenLater binds a socket as QEMU does, and listens only when told to.
func listenLater(t *testing.T) (path string, listen func()) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	return path, func() {
		if err := syscall.Listen(fd, 1); err != nil {
			t.Error(err)
		}
	}
}

func TestReachTriesUntilTheChildListens(t *testing.T) {
	p, err := startProcess("child", filepath.Join(t.TempDir(), "p.log"), nil, "sleep", "1000")
	if err != nil {
		t.Fatal(err)
	}
	defer p.kill()
	ctx, cancel := context.WithTimeout(t.Context(), guard)
	defer cancel()
	bound, listen := listenLater(t)
	path := filepath.Join(filepath.Dir(bound), "none yet")
	var seen []error
	err = p.reach(ctx, func() error {
		conn, err := net.Dial("unix", path)
		if err == nil {
			return conn.Close()
		}
		seen = append(seen, err)
		if path != bound {
			path = bound // the child has bound
		} else {
			listen()
		}
		return err
	})
	if err != nil || len(seen) != 2 || !errors.Is(seen[0], syscall.ENOENT) || !errors.Is(seen[1], syscall.ECONNREFUSED) {
		t.Errorf("reach() = %v after %v, want success after ENOENT and ECONNREFUSED", err, seen)
	}
}

func TestReachGivesUp(t *testing.T) {
	refused := func() error { return syscall.ECONNREFUSED }
	p, err := startProcess("child", filepath.Join(t.TempDir(), "p.log"), nil, "sleep", "1000")
	if err != nil {
		t.Fatal(err)
	}
	defer p.kill()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.reach(ctx, refused); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("reach() = %v, want the context's error and the last refusal", err)
	}
	if err := p.reach(t.Context(), func() error { return syscall.EACCES }); !errors.Is(err, syscall.EACCES) {
		t.Errorf("reach() = %v, want %v at once", err, syscall.EACCES)
	}
	p.kill()
	if err := p.reach(t.Context(), refused); err == nil || !strings.Contains(err.Error(), "signal: killed") {
		t.Errorf("reach() of a dead child = %v, want how it ended", err)
	}
}

func TestRigCloseEndsEverythingLastFirst(t *testing.T) {
	rig, err := NewRig(&Env{}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	boom := errors.New("boom")
	rig.own(closer(func() error { order = append(order, "first"); return boom }))
	rig.own(closer(func() error { order = append(order, "second"); return nil }))
	if err := rig.Close(); !errors.Is(err, boom) {
		t.Errorf("Close() = %v, want the error of a part", err)
	}
	if strings.Join(order, " ") != "second first" {
		t.Errorf("ended in order %v", order)
	}
	if _, err := os.Stat(rig.dir); !os.IsNotExist(err) {
		t.Errorf("the rig's folder is still there: %v", err)
	}
	if err := rig.Close(); err != nil {
		t.Errorf("second Close() = %v", err)
	}
}

type closer func() error

func (c closer) Close() error { return c() }

func TestRigRefusesAFolderTooLongForSockets(t *testing.T) {
	long := filepath.Join(t.TempDir(), strings.Repeat("x", 100))
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", long)
	if _, err := NewRig(&Env{}, t.TempDir()); err == nil {
		t.Fatal("NewRig() = nil error")
	}
	if left, _ := os.ReadDir(long); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// The backend in these tests is a shell script that follows sd_notify(3) only as
// far as each case says.
func fakeProgram(t *testing.T, rig *Rig, script string) {
	t.Helper()
	rig.Env.Build = t.TempDir()
	path := rig.Env.Program("vhost-user-vtpm")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
}

func TestStartBackendReportsAProgramThatEndsEarly(t *testing.T) {
	rig := testRig(t)
	fakeProgram(t, rig, "echo state is damaged; exit 3")
	_, err := rig.StartBackend(t.Context(), BackendOptions{})
	if err == nil || !strings.Contains(err.Error(), "state is damaged") {
		t.Errorf("StartBackend() = %v, want the program's last words", err)
	}
}

func TestStartBackendGivesUpWithItsContext(t *testing.T) {
	rig := testRig(t)
	fakeProgram(t, rig, "exec sleep 1000")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := rig.StartBackend(ctx, BackendOptions{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("StartBackend() = %v, want the context's error", err)
	}
}

// What a rig has started ends with it, last one first.
func TestStartEndsWithItsRig(t *testing.T) {
	rig := testRig(t)
	for _, name := range []string{"first", "second"} {
		if err := rig.Start(name, "sh", "-c", "trap 'echo "+name+" >>"+rig.log("ends")+"; exit' TERM; echo ready; while :; do sleep 0.01; done"); err != nil {
			t.Fatal(err)
		}
		for !strings.HasSuffix(tail(rig.log(name)), "ready") {
			time.Sleep(time.Millisecond)
		}
	}
	if err := rig.Start("nothing", "/nonexistent/program"); err == nil {
		t.Error("a program that does not exist was started")
	}
	if err := rig.Close(); err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(tail(rig.log("ends"))); !slices.Equal(got, []string{"second", "first"}) {
		t.Errorf("ended were %q, want second and first", got)
	}
}

func TestChildNamed(t *testing.T) {
	p, err := startProcess("parent", filepath.Join(t.TempDir(), "p.log"), nil, "sh", "-c", "sleep 1000 & echo $!; wait")
	if err != nil {
		t.Fatal(err)
	}
	want := 0
	for want == 0 {
		text := tail(p.logPath)
		want, _ = strconv.Atoi(strings.TrimSpace(text[strings.LastIndex(text, "\n")+1:]))
		time.Sleep(time.Millisecond)
	}
	defer func() { _ = syscall.Kill(want, syscall.SIGKILL) }()
	defer p.kill()
	for childNamed(p.cmd.Process.Pid, "sleep") == 0 && p.alive() {
		time.Sleep(time.Millisecond) // until the child has replaced its program
	}
	if got := childNamed(p.cmd.Process.Pid, "sleep"); got != want {
		t.Errorf("childNamed(sleep) = %d, want %d", got, want)
	}
	if got := childNamed(p.cmd.Process.Pid, "swtpm"); got != 0 {
		t.Errorf("childNamed(swtpm) = %d, want 0", got)
	}
}
