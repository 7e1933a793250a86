// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ed25519"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/accesskey"
	"hwvtpm/coproc/admin"
	"hwvtpm/coproc/pcie"
	"hwvtpm/internal/cli"
	"hwvtpm/vhostuser/vhostusertest"
)

// startFunction starts a card that is a PCI function, and gives its socket.
func startFunction(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "card") // short, for the socket's name
	if err != nil {
		t.Fatal(err)
	}
	socket, log := filepath.Join(dir, "s"), &lockedBuffer{}
	cmd := exec.Command(built.Path(t, "coprocd"), "--vfio-user", socket, "--store", filepath.Join(dir, "store"), "--worker-uid", "-1")
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("log of coprocd:\n%s", log)
		}
		os.RemoveAll(dir)
	})
	for end := time.Now().Add(hang); ; time.Sleep(5 * time.Millisecond) {
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
			return socket
		}
		if time.Now().After(end) {
			t.Fatalf("coprocd does not listen: %v\n%s", err, log)
		}
	}
}

// newFunction gives a card that is a PCI function with the slot vm-a, and the
// file of its key.
func newFunction(t *testing.T) (socket, file string) {
	t.Helper()
	socket, file = startFunction(t), filepath.Join(t.TempDir(), "vm-a.key")
	key, err := accesskey.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	card, err := pcie.Open(pcie.Config{Open: pcie.VFIOUser(socket, 0)})
	if err != nil {
		t.Fatal(err)
	}
	defer card.Close()
	_, err = admin.New(card).Create(t.Context(), abi.SlotCreate{
		Keys: abi.KeyP256EK, Banks: abi.DefaultBanks, Name: "vm-a", AccessKey: [32]byte(key.Public().(ed25519.PublicKey)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return socket, file
}

// TestSlotOfAFunction: a guest's TPM is in a PCI card, and stays there when the
// program is killed.
func TestSlotOfAFunction(t *testing.T) {
	socket, key := newFunction(t)
	start := func(key string) *program {
		return launchWith(t, "--coproc", "vfio-user:"+socket, "--slot", "vm-a", "--slot-key", key, "--reset-policy", "keep")
	}
	p := start(key)
	p.ready()
	g := connect(t, p, vhostusertest.Options{Features: 7})
	was := g.boot()
	p.signal(syscall.SIGKILL)
	p.wait()
	p = start(key)
	p.ready()
	g = connect(t, p, vhostusertest.Options{Features: 7})
	if got := g.pcr10(); got != was {
		t.Errorf("PCR 10 after the program was killed = %x, want %x", got, was)
	}
	p.signal(syscall.SIGTERM)
	if code := p.wait(); code != cli.ExitOK {
		t.Errorf("exit code %d", code)
	}

	other := filepath.Join(t.TempDir(), "other.key")
	if _, err := accesskey.Create(other); err != nil {
		t.Fatal(err)
	}
	p = start(other)
	if code := p.wait(); code != cli.ExitLasting || !strings.Contains(p.log.String(), "access key") {
		t.Errorf("with another key: exit code %d, want %d", code, cli.ExitLasting)
	}
}

// TestFunctionThatIsNotThere: the error says which.
func TestFunctionThatIsNotThere(t *testing.T) {
	for spec, says := range map[string]string{
		"pcie:ffff:ff:1f.7": "no PCI function at ffff:ff:1f.7",
		"pcie:05:00.0":      "no PCI address",
		"vfio-user:" + filepath.Join(t.TempDir(), "none"): "no such file",
	} {
		p := launchWith(t, "--coproc", spec, "--slot", "vm-a", "--slot-key", "k", "--reset-policy", "keep")
		if code := p.wait(); code != cli.ExitFailure || !strings.Contains(p.log.String(), says) {
			t.Errorf("--coproc %s: exit code %d, want %d and %q", spec, code, cli.ExitFailure, says)
		}
	}
}
