// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"hwvtpm/coproc/accesskey"
	"hwvtpm/coproc/coprocd/coprocdtest"
	"hwvtpm/internal/cli"
)

// attached is a card with the slot "imported", and a directory that swtpm has used.
type attached struct {
	*testing.T
	card     *coprocdtest.Server
	dir, key string
}

func newAttached(t *testing.T) attached {
	t.Helper()
	a := attached{t, coprocdtest.Start(t), t.TempDir(), filepath.Join(t.TempDir(), "imported.key")}
	key, err := accesskey.Create(a.key)
	if err != nil {
		t.Fatal(err)
	}
	a.card.Card.Add("imported", [32]byte(key.Public().(ed25519.PublicKey)))
	if err := os.WriteFile(filepath.Join(a.dir, swtpmFile), []byte("swtpm's"), 0o600); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a attached) setup(args ...string) (code int, output string) {
	con, out := quietConsole()
	con.getenv = func(name string) string { return map[string]string{"HWVTPM_SOCKET": a.card.Path()}[name] }
	log := filepath.Join(a.TempDir(), "log")
	args = slices.Concat([]string{"swtpm_setup", "--tpm2", "--tpm-state", a.dir, "--logfile", log}, args)
	code = realMain(a.Context(), con, args)
	return code, out.String()
}

// files are those of the directory, but for swtpm's.
func (a attached) files() (names []string) {
	found, _ := filepath.Glob(filepath.Join(a.dir, "*"))
	for _, path := range found {
		if name := filepath.Base(path); name != swtpmFile {
			names = append(names, name)
		}
	}
	return names
}

// TestAttach: the directory of a machine that was swtpm's leads to the slot, by a key
// that swtpm's user can read.
func TestAttach(t *testing.T) {
	a := newAttached(t)
	owner := os.Getuid()
	if owner == 0 {
		owner = 12345
		if err := os.Chown(a.dir, owner, owner); err != nil {
			t.Fatal(err)
		}
	}
	if code, out := a.setup("--slot", "imported", "--slot-key", a.key); code != cli.ExitOK {
		t.Fatalf("exit code %d: %s", code, out)
	}
	p, err := readPlace(a.dir)
	if err != nil || p.Slot != "imported" {
		t.Fatalf("the directory leads to %+v, %v", p, err)
	}
	tpm, err := openFree(context.Background(), settings{socket: a.card.Path()}, a.dir, p, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	if err := tpm.Close(); err != nil {
		t.Error(err)
	}
	for _, name := range []string{placeFile, keyFile} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(a.dir, name), &st); err != nil || st.Mode != unix.S_IFREG|0o600 || int(st.Uid) != owner {
			t.Errorf("%s: mode %o, owner %d, %v", name, st.Mode, st.Uid, err)
		}
	}
	if code, out := a.setup("--slot", "imported", "--slot-key", a.key); code != cli.ExitFailure || !strings.Contains(out, "has a TPM already") {
		t.Errorf("a second time: exit code %d: %s", code, out)
	}
}

// TestAttachRefuses: and leaves nothing behind.
func TestAttachRefuses(t *testing.T) {
	a := newAttached(t)
	other := filepath.Join(t.TempDir(), "other.key")
	if _, err := accesskey.Create(other); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"no key":       {[]string{"--slot", "imported"}, "belong together"},
		"no slot":      {[]string{"--slot-key", a.key}, "belong together"},
		"a path":       {[]string{"--slot", "../imported", "--slot-key", a.key}, "not the name of a slot"},
		"unknown slot": {[]string{"--slot", "none", "--slot-key", a.key}, "slot none"},
		"missing key":  {[]string{"--slot", "imported", "--slot-key", other + "x"}, "no such file"},
		"wrong key":    {[]string{"--slot", "imported", "--slot-key", other}, "denied"},
		"new keys":     {[]string{"--slot", "imported", "--slot-key", a.key, "--createek"}, "as it is"},
	} {
		if code, out := a.setup(tc.args...); code != cli.ExitFailure || !strings.Contains(out, tc.want) {
			t.Errorf("%s: exit code %d: %q, want %q", name, code, out, tc.want)
		}
		if names := a.files(); len(names) > 0 {
			t.Errorf("%s: left %q", name, names)
		}
	}
	if _, err := readPlace(a.dir); err == nil || errors.Is(err, errNoPlace) {
		t.Errorf("swtpm's state may be shadowed: %v", err)
	}
}

func TestGroupsOfAUser(t *testing.T) {
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	groups, err := groupsOf(u)
	if err != nil || !slices.Contains(groups, os.Getgid()) {
		t.Errorf("groups %v, %v, want %d among them", groups, err, os.Getgid())
	}
}
