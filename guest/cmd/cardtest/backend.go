// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/coproctest"
	"hwvtpm/vhostuser/vhostusertest"
	"hwvtpm/vtpm"
)

// testBackend: the program that serves a virtual machine takes its TPM from the
// card.
func testBackend(t *testing.T) {
	program, err := exec.LookPath("vhost-user-vtpm")
	if err != nil {
		t.Skipf("no backend: %v", err)
	}
	key, err := keyFile()
	if err != nil {
		t.Fatal(err)
	}
	if err := openCard(t, viaKernel()).Close(); err != nil { // the slot stays
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	socket := filepath.Join(t.TempDir(), "s")
	cmd := exec.CommandContext(ctx, program, "--socket-path", socket, "--coproc", "pcie:"+card,
		"--slot", coproctest.SlotName, "--slot-key", key, "--reset-policy", "keep")
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exchangeOne(ctx, t, socket)
	if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("backend: %v\n%s", err, &log)
	}
}

// exchangeOne starts the TPM behind the backend's socket.
func exchangeOne(ctx context.Context, t *testing.T, socket string) {
	t.Helper()
	var f *vhostusertest.Frontend
	for {
		var err error
		if f, err = vhostusertest.Dial(socket, vhostusertest.Options{Packed: true}); err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Errorf("backend does not serve: %v", err)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	defer f.Close()
	startup := []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x44, 0, 0}
	resp, err := f.Exchange(startup, vtpm.BufferSize)
	if err != nil || len(resp) != 10 || binary.BigEndian.Uint32(resp[6:]) != 0 {
		t.Errorf("TPM2_Startup = %x, %v", resp, err)
	}
}
