// SPDX-License-Identifier: Apache-2.0

package qmp_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/digitalocean/go-qemu/qmp/raw"

	"hwvtpm/qmp"
)

// startQEMU starts a paused VM without a guest and connects to it. It skips
// unless the tier of tests that need system packages was asked for.
// HWVTPM_QEMU names another QEMU than the one in PATH.
func startQEMU(t *testing.T, args ...string) (*qmp.Client, *os.Process) {
	t.Helper()
	if os.Getenv("HWVTPM_TEST_ROOT") != "1" {
		t.Skip("needs a real QEMU: set HWVTPM_TEST_ROOT=1 (tier test-root)")
	}
	program := os.Getenv("HWVTPM_QEMU")
	if program == "" {
		found, err := exec.LookPath("qemu-system-x86_64")
		if err != nil {
			t.Skipf("needs a real QEMU: %v; HWVTPM_QEMU may name one", err)
		}
		program = found
	}
	path := filepath.Join(socketDir(t), "qmp.sock")
	args = append([]string{"-nodefaults", "-no-user-config", "-display", "none", "-S",
		"-name", "vm1", "-qmp", "unix:" + path + ",server=on,wait=off"}, args...)
	var stderr bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have quit
		_ = cmd.Wait()         // reports the kill
		if t.Failed() {
			t.Logf("QEMU said: %s", &stderr)
		}
	})
	return dialQEMU(t, path), cmd.Process
}

// dialQEMU connects as soon as QEMU listens.
func dialQEMU(t *testing.T, path string) *qmp.Client {
	t.Helper()
	for ctx := within(t); ; time.Sleep(10 * time.Millisecond) {
		c, err := qmp.Dial(ctx, path)
		if err == nil {
			t.Cleanup(func() { _ = c.Close() }) // always nil
			return c
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

// socketDir is a TempDir whose name fits into sun_path.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "qmp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // leftovers harm no test
	return dir
}

func TestQEMUGreetingPeerAndQueries(t *testing.T) {
	c, process := startQEMU(t, "-M", "none")
	if v := c.Greeting().Version; v.QEMU.Major == 0 {
		t.Errorf("Greeting() has version %s", v)
	}
	if pid, ok := c.Peer(); !ok || pid != process.Pid {
		t.Errorf("Peer() = %d, %v, want QEMU's %d", pid, ok, process.Pid)
	}
	if s, err := c.QueryStatus(within(t)); err != nil || s.Running || s.Status != raw.RunStatePrelaunch {
		t.Errorf("QueryStatus() = %+v, %v", s, err)
	}
	if n, err := c.QueryName(within(t)); err != nil || n != "vm1" {
		t.Errorf("QueryName() = %q, %v", n, err)
	}
	if u, err := c.QueryUUID(within(t)); err != nil || len(u) != 36 {
		t.Errorf("QueryUUID() = %q, %v", u, err)
	}
	var schema json.RawMessage
	err := c.Execute(within(t), command("query-qmp-schema"), &schema)
	if err != nil || len(schema) < 100<<10 || !json.Valid(schema) {
		t.Errorf("query-qmp-schema: %d bytes, %v", len(schema), err)
	}
	t.Logf("query-qmp-schema is %d bytes", len(schema))
}

// The RESET event may come after the reply of system_reset, but a reply that
// comes later still is behind it in the stream.
func TestQEMUReset(t *testing.T) {
	c, _ := startQEMU(t, "-M", "q35")
	resets := c.Subscribe(qmp.EventReset)
	for range 3 {
		if err := c.SystemReset(within(t)); err != nil {
			t.Fatal(err)
		}
		e, err := resets.Next(within(t))
		if err != nil || e.Data["guest"] != false || e.Data["reason"] != "host-qmp-system-reset" {
			t.Fatalf("got %+v, %v", e, err)
		}
	}
}

func TestQEMUQuit(t *testing.T) {
	c, _ := startQEMU(t, "-M", "none")
	all := c.Subscribe(qmp.EventShutdown)
	if err := c.Quit(within(t)); err != nil {
		t.Fatal(err)
	}
	if e, err := all.Next(within(t)); err != nil || e.Data["reason"] != "host-qmp-quit" {
		t.Errorf("got %+v, %v", e, err)
	}
	if _, err := all.Next(within(t)); !errors.Is(err, qmp.ErrDisconnected) {
		t.Errorf("Next() = %v, want %v", err, qmp.ErrDisconnected)
	}
}

func TestQEMUDescriptors(t *testing.T) {
	c, _ := startQEMU(t, "-M", "none")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := c.GetFD(within(t), "pipe", w); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	// The pipe ends only when QEMU has closed its copy, too.
	if err := c.CloseFD(within(t), "pipe"); err != nil {
		t.Fatal(err)
	}
	if err := r.SetReadDeadline(time.Now().Add(deadline)); err != nil {
		t.Fatal(err)
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("Read() = %d, %v, want the end of the pipe", n, err)
	}
	err = c.Execute(within(t), qmp.Command{Execute: "getfd", Args: map[string]string{"fdname": "none"}}, nil)
	if e, ok := errors.AsType[*qmp.Error](err); !ok || e.Class != qmp.ClassGenericError {
		t.Errorf("getfd without descriptor: %v, want a refusal", err)
	}
}

func TestQEMUDescriptorSet(t *testing.T) {
	c, _ := startQEMU(t, "-M", "none")
	info, err := c.AddFD(within(t), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	var sets []raw.FdsetInfo
	if err := c.Execute(within(t), command("query-fdsets"), &sets); err != nil {
		t.Fatal(err)
	}
	if len(sets) != 1 || sets[0].FdsetID != info.FdsetID || len(sets[0].Fds) != 1 || sets[0].Fds[0].FD != info.FD {
		t.Errorf("QEMU has the sets %+v, want only %+v", sets, info)
	}
}

// A device on a socket character device is replaced by the steps that a
// vhost-user device needs. A virtio serial port stands in for it, since that one
// leaves without the help of a guest.
func TestQEMUReplaceDeviceOnSocket(t *testing.T) {
	c, _ := startQEMU(t, "-M", "q35", "-device", "virtio-serial-pci")
	dir := socketDir(t)
	spec := qmp.VhostUserSpec{DeviceID: "port0", ChardevID: "c0", Device: map[string]any{"driver": "virtserialport"}}
	var previous *net.UnixConn
	for i := range 3 {
		spec.Socket = filepath.Join(dir, string(rune('a'+i)))
		ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: spec.Socket, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		if err := c.ReplaceVhostUser(within(t), spec); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		conn, err := ln.AcceptUnix()
		if err != nil {
			t.Fatal(err)
		}
		if previous != nil {
			if n, err := previous.Read(make([]byte, 1)); n != 0 || err == nil {
				t.Errorf("round %d: the old connection is still open", i)
			}
		}
		if i == 1 { // the last round replaces a dead peer
			_ = conn.Close() // QEMU sees it or not
			conn = nil
		}
		previous = conn
	}
	if err := c.Unplug(within(t), "port0"); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitDeviceDeleted(within(t), "port0"); err != nil {
		t.Error(err)
	}
	spec.Socket = filepath.Join(dir, "nobody")
	err := c.ReplaceVhostUser(within(t), spec)
	if e, ok := errors.AsType[*qmp.Error](err); !ok || e.Command != "chardev-add" {
		t.Errorf("ReplaceVhostUser() without a back-end = %v, want a refusal of chardev-add", err)
	}
}

// A QEMU process that is stopped answers nothing, and that must not hang us.
func TestQEMUStoppedProcess(t *testing.T) {
	c, process := startQEMU(t, "-M", "none")
	if err := process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(within(t), 50*time.Millisecond)
	defer cancel()
	if _, err := c.QueryStatus(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("QueryStatus() = %v, want %v", err, context.DeadlineExceeded)
	}
	drain(t, c)
	if err := process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if n, err := c.QueryName(within(t)); err != nil || n != "vm1" {
		t.Errorf("QueryName() = %q, %v", n, err)
	}
}
