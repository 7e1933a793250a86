// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/internal/cli"
)

// The other face: QEMU's part is played for two machines, one after the other.
func TestEmulatorSocket(t *testing.T) {
	dir := built.Dir(t)
	socket := filepath.Join(t.TempDir(), "s")
	p := &program{t: t, socket: socket, log: &lockedBuffer{}, done: make(chan error, 1)}
	p.cmd = exec.Command(filepath.Join(dir, "vhost-user-vtpm"),
		"--tpm-emulator-socket", socket, "--coproc", "sim:"+filepath.Join(t.TempDir(), "tpm"))
	p.cmd.Stderr = p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.done <- p.cmd.Wait() }()
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	p.ready()
	for range 2 {
		useEmulator(t, socket)
	}
	p.signal(unix.SIGTERM)
	if code := p.wait(); code != cli.ExitOK {
		t.Errorf("exit code %d; the log is:\n%s", code, p.log)
	}
	if n := strings.Count(p.log.String(), "a virtual machine has connected"); n != 2 {
		t.Errorf("%d machines were noticed, want 2:\n%s", n, p.log)
	}
	if _, err := os.Stat(socket); err == nil {
		t.Error("the socket is still there")
	}
}

// useEmulator powers the TPM on, starts it and hangs up.
func useEmulator(t *testing.T, socket string) {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	exchange := func(what string, send, want []byte, fds ...int) {
		t.Helper()
		if _, _, err := c.WriteMsgUnix(send, unix.UnixRights(fds...), nil); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		got := make([]byte, len(want))
		_ = c.SetReadDeadline(time.Now().Add(hang))
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s: % x, %v; want % x", what, got, err, want)
		}
	}
	exchange("SET_DATAFD", []byte{0, 0, 0, 0x10}, make([]byte, 4), pair[1])
	unix.Close(pair[1])
	exchange("INIT", []byte{0, 0, 0, 2, 0, 0, 0, 0}, make([]byte, 4))
	startup := []byte{0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0}
	if _, err := unix.Write(pair[0], startup); err != nil {
		t.Fatal(err)
	}
	resp := make([]byte, 64)
	n, err := unix.Read(pair[0], resp)
	if want := []byte{0x80, 1, 0, 0, 0, 10, 0, 0, 0, 0}; err != nil || !bytes.Equal(resp[:n], want) {
		t.Errorf("TPM2_Startup: % x, %v", resp[:max(n, 0)], err)
	}
}
