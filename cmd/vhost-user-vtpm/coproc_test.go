// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ed25519"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"hwvtpm/coproc/accesskey"
	"hwvtpm/coproc/coprocd/coprocdtest"
	"hwvtpm/internal/cli"
)

// newCard gives a daemon with the slot vm-a, and the file of its key.
func newCard(t *testing.T) (*coprocdtest.Server, string) {
	t.Helper()
	s := coprocdtest.Start(t)
	file := filepath.Join(t.TempDir(), "vm-a.key")
	key, err := accesskey.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	s.Card.Add("vm-a", [32]byte(key.Public().(ed25519.PublicKey)))
	return s, file
}

// launchCard starts the program on a slot of a card.
func launchCard(t *testing.T, s *coprocdtest.Server, slot, key string) *program {
	t.Helper()
	return launchWith(t, "--coproc", "coprocd:"+s.Path(), "--slot", slot, "--slot-key", key, "--reset-policy", "keep")
}

func TestSlotOfACard(t *testing.T) {
	s, key := newCard(t)
	p := launchCard(t, s, "vm-a", key)
	p.ready()
	if life := s.Card.Slot("vm-a").Info().Life.String(); life != "live" {
		t.Errorf("the slot is %s", life)
	}
	p.signal(syscall.SIGTERM)
	if code := p.wait(); code != cli.ExitOK {
		t.Errorf("exit code %d", code)
	}
}

// TestSlotCannotBeUsed: a virtual machine reaches its own slot alone, and what
// an operator has to see to is told from what passes.
func TestSlotCannotBeUsed(t *testing.T) {
	s, key := newCard(t)
	other, _ := newCard(t)
	s.Card.Add("vm-b", [32]byte{1})
	shared := filepath.Join(t.TempDir(), "shared.key")
	text, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(shared, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(shared, 0o644); err != nil {
		t.Fatal(err)
	}
	other.Stop()
	for _, tc := range []struct {
		card      *coprocdtest.Server
		slot, key string
		code      int
		says      string
	}{
		{s, "vm-b", key, cli.ExitLasting, "not the access key"},
		{s, "vm-c", key, cli.ExitLasting, "no slot of this name"},
		{s, "vm-a", key + "x", cli.ExitLasting, "no such file"},
		{s, "vm-a", shared, cli.ExitLasting, "0644"},
		{other, "vm-a", key, cli.ExitFailure, "connect"},
	} {
		p := launchCard(t, tc.card, tc.slot, tc.key)
		if code := p.wait(); code != tc.code || !strings.Contains(p.log.String(), tc.says) {
			t.Errorf("slot %s: exit code %d, want %d and %q", tc.slot, code, tc.code, tc.says)
		}
	}
}

// TestLittleIsLinked: there is one such process for each virtual machine.
func TestLittleIsLinked(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "hwvtpm/cmd/vhost-user-vtpm").Output()
	if err != nil {
		t.Fatal(err)
	}
	for dep := range strings.FieldsSeq(string(out)) {
		if dep == "net/http" || dep == "crypto/x509" || dep == "crypto/tls" || strings.HasPrefix(dep, "hwvtpm/firmware") {
			t.Errorf("the program links %s", dep)
		}
	}
}
