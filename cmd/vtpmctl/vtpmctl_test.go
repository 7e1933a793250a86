// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/accesskey"
	"hwvtpm/coproc/coprocd/coprocdtest"
	"hwvtpm/internal/cli"
)

// rig is a daemon and a place for keys.
type rig struct {
	*coprocdtest.Server
	t    *testing.T
	keys string
}

func newRig(t *testing.T) *rig {
	return &rig{coprocdtest.Start(t), t, filepath.Join(t.TempDir(), "keys")}
}

// result is what one call of the program has left.
type result struct {
	code     int
	out, err string
}

// run calls the program with the words of line; stdin is its input.
func (r *rig) run(stdin, line string) result {
	return r.call(stdin, strings.Fields(line), false)
}

func (r *rig) call(stdin string, args []string, person bool) result {
	return r.realCall(strings.NewReader(stdin), args, person)
}

// with calls the program with an input of its own.
func (r *rig) with(in io.Reader, line string) result {
	return r.realCall(in, strings.Fields(line), false)
}

func (r *rig) realCall(in io.Reader, args []string, person bool) result {
	var out, errs bytes.Buffer
	env := map[string]string{"HWVTPM_SOCKET": r.Path(), "HWVTPM_KEYS": r.keys}
	code := realMain(r.t.Context(), &console{
		in: in, out: &out, err: &errs, getenv: func(k string) string { return env[k] }, askable: person,
	}, args)
	return result{code, out.String(), errs.String()}
}

// must calls the program and wants it to succeed.
func (r *rig) must(line string) string {
	r.t.Helper()
	got := r.run("", line)
	if got.code != cli.ExitOK {
		r.t.Fatalf("vtpmctl %s: exit code %d\n%s", line, got.code, got.err)
	}
	return got.out
}

// as reads JSON strictly.
func as[T any](t *testing.T, text string) (v T) {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

func TestCreateShowList(t *testing.T) {
	r := newRig(t)
	s := as[slotJSON](t, r.must("--json slot create vm-a --keys p256,srk --banks sha256"))
	if s.Name != "vm-a" || s.Keys != "p256,srk" || s.Banks != "sha256" || s.State != "closed" || s.Created == nil || s.LastUsed != nil {
		t.Errorf("slot create: %+v", s)
	}
	path := filepath.Join(r.keys, "vm-a.key")
	key, err := accesskey.Load(path) // checks the mode
	if err != nil {
		t.Fatal(err)
	}
	if want := base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey)); s.AccessKey != want {
		t.Errorf("access key is %s, want %s", s.AccessKey, want)
	}
	info, err := os.Stat(r.keys)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("key directory: %v, %v, want 0700", info.Mode(), err)
	}
	if got := as[slotJSON](t, r.must("slot show vm-a --json")); got.ID != s.ID {
		t.Errorf("slot show: %+v, want %+v", got, s)
	}
	r.must("slot create vm-b")
	if all := as[[]slotJSON](t, r.must("slot --json list")); len(all) != 2 || all[1].Name != "vm-b" || all[1].Keys != "rsa,p256,p384,srk" {
		t.Errorf("slot list: %+v", all)
	}
	for _, line := range []string{"slot list", "slot show vm-a", "card"} {
		if out := r.must(line); strings.Count(out, "\n") < 3 || strings.Contains(out, "{") {
			t.Errorf("vtpmctl %s is no table:\n%s", line, out)
		}
	}
}

func TestEmptyListIsJSON(t *testing.T) {
	if out := newRig(t).must("slot list --json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("slot list of no slots is %q", out)
	}
}

// TestNothingSecretIsPrinted: not in any output of a slot's whole life.
func TestNothingSecretIsPrinted(t *testing.T) {
	r := newRig(t)
	all := r.call("", []string{"slot", "create", "a"}, false)
	key, err := accesskey.Load(filepath.Join(r.keys, "a.key"))
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	text.WriteString(all.out + all.err)
	for _, line := range []string{"--json slot show a", "statement ek a", "slot destroy a --yes --json"} {
		got := r.run("", line)
		text.WriteString(got.out + got.err)
	}
	pem := string(accesskey.Marshal(key))
	for _, secret := range []string{string(key.Seed()), base64.StdEncoding.EncodeToString(key.Seed()), strings.Split(pem, "\n")[1]} {
		if strings.Contains(text.String(), secret) {
			t.Error("the access key is in the output")
		}
	}
}

// TestCreateKeepsKeys: a key that is there is neither replaced nor used unasked,
// and one whose slot was not made goes.
func TestCreateKeepsKeys(t *testing.T) {
	r := newRig(t)
	r.must("slot create a")
	path := filepath.Join(r.keys, "a.key")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.run("", "slot create a"); got.code != cli.ExitFailure || !strings.Contains(got.err, "--access-key") {
		t.Errorf("create with a key file there: %+v", got)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the key file was changed: %v", err)
	}
	other := t.TempDir()
	if got := r.run("", "slot create a --key-dir "+other); got.code != cli.ExitFailure || !strings.Contains(got.err, "exists already") {
		t.Errorf("create of a slot that is there: %+v", got)
	}
	if left, _ := os.ReadDir(other); len(left) != 0 {
		t.Errorf("the refused slot's key is left: %v", left)
	}
	// With a public key there is no new file.
	key, err := accesskey.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	pub := filepath.Join(other, "pub.pem")
	if err := os.WriteFile(pub, accesskey.MarshalPublic(key.Public().(ed25519.PublicKey)), 0o644); err != nil {
		t.Fatal(err)
	}
	r.must("slot create b --access-key " + pub + " --key-dir " + other)
	if left, _ := os.ReadDir(other); len(left) != 1 || r.Card.Slot("b").Info().AccessKey != r.Card.Slot("a").Info().AccessKey {
		t.Errorf("create with a public key: files %v", left)
	}
}

// TestCreateUnanswered: if nobody knows whether the slot was made, its key stays.
func TestCreateUnanswered(t *testing.T) {
	r := newRig(t)
	r.Hook(func(sub abi.Submission, a *coprocdtest.Answer) {
		if sub.Op == abi.OpSlotCreate {
			a.Packets = nil
		}
	})
	got := r.run("", "slot create a")
	if _, err := accesskey.Load(filepath.Join(r.keys, "a.key")); err != nil || got.code != cli.ExitFailure || !strings.Contains(got.err, "a.key") {
		t.Errorf("create that is not answered: %+v, %v", got, err)
	}
}

func TestDestroy(t *testing.T) {
	r := newRig(t)
	for _, tc := range []struct {
		stdin, line string
		person      bool
		code        int
		gone        bool
	}{
		{"", "slot destroy a", false, cli.ExitUsage, false},
		{"a\n", "slot destroy a", false, cli.ExitUsage, false},
		{"yes\n", "slot destroy a", true, cli.ExitFailure, false},
		{"", "slot destroy a", true, cli.ExitFailure, false},
		{"a\n", "slot destroy a", true, cli.ExitOK, true},
		{"", "slot destroy a --yes", false, cli.ExitOK, true},
		{"", "slot destroy none --yes", false, exitNotFound, false},
	} {
		if r.Card.Slot("a") == nil {
			r.Card.Add("a", [32]byte{1})
		}
		got := r.call(tc.stdin, strings.Fields(tc.line), tc.person)
		if got.code != tc.code || (r.Card.Slot("a") == nil) != tc.gone {
			t.Errorf("%q, then %q: %+v, gone: %t", tc.line, tc.stdin, got, r.Card.Slot("a") == nil)
		}
	}
}

func TestReceipt(t *testing.T) {
	r := newRig(t)
	r.Card.Add("a", [32]byte{1})
	path := filepath.Join(t.TempDir(), "receipt")
	s := as[statementJSON](t, r.must("slot destroy a --yes --json --receipt "+path))
	raw, err := os.ReadFile(path)
	if err != nil || s.Type != "erase" || s.Receipt == nil || s.Receipt.Name != "a" || s.Signed != base64.StdEncoding.EncodeToString(raw) {
		t.Errorf("receipt: %+v, %v", s, err)
	}
	// A place that can't be written to is found out before, not after.
	r.Card.Add("b", [32]byte{1})
	if got := r.run("", "slot destroy b --yes --receipt "+path); got.code != cli.ExitFailure || r.Card.Slot("b") == nil {
		t.Errorf("destroy with a receipt that would replace another: %+v", got)
	}
}

func TestStatement(t *testing.T) {
	r := newRig(t)
	r.Card.Add("a", [32]byte{1})
	ek := as[statementJSON](t, r.must("statement ek a --json"))
	if ek.Type != "ek" || ek.EK == nil || len(ek.EK.Keys) != 1 || ek.EK.Keys[0].Handle != "0x81010001" {
		t.Errorf("statement ek: %+v", ek)
	}
	health := as[statementJSON](t, r.must("statement health --json"))
	if health.Type != "health" || health.Health == nil || health.Health.Slots != 1 || health.Health.RollbackProtection != "none" {
		t.Errorf("statement health: %+v", health)
	}
	r.Hook(func(sub abi.Submission, a *coprocdtest.Answer) {
		if sub.Op == abi.OpStatement {
			a.Packets[0][abi.HeaderSize+30] ^= 1 // the time
		}
	})
	out := filepath.Join(t.TempDir(), "out")
	if got := r.run("", "statement health --out "+out); got.code != cli.ExitFailure || got.out != "" || !strings.Contains(got.err, "signature is wrong") {
		t.Errorf("statement that was changed: %+v", got)
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("a statement that was changed is kept")
	}
}

func TestCloneLockAdoptPark(t *testing.T) {
	r := newRig(t)
	r.Card.Add("a", [32]byte{1})
	if got := r.run("", "slot clone a b"); got.code != cli.ExitUsage || !strings.Contains(got.err, "--new-identity") {
		t.Errorf("clone: %+v", got)
	}
	if got := r.run("", "slot clone none b --new-identity"); got.code != exitNotFound {
		t.Errorf("clone of nothing: %+v", got)
	}
	if s := as[slotJSON](t, r.must("slot clone a b --new-identity --json")); s.Name != "b" {
		t.Errorf("clone: %+v", s)
	}
	if s := as[slotJSON](t, r.must("slot lock a --json")); s.State != "locked" {
		t.Errorf("lock: %+v", s)
	}
	if s := as[slotJSON](t, r.must("slot unlock a --json")); s.State != "closed" {
		t.Errorf("unlock: %+v", s)
	}
	r.must("slot park a")
	if got := r.run("", "slot adopt a"); got.code != cli.ExitUsage {
		t.Errorf("adopt without a reason: %+v", got)
	}
	if got := r.call("", []string{"slot", "adopt", "a", "--reason", "disk died"}, false); got.code != cli.ExitOK || r.Card.Reason() != "disk died" {
		t.Errorf("adopt: %+v, reason %q", got, r.Card.Reason())
	}
}

func TestUsage(t *testing.T) {
	r := newRig(t)
	for _, line := range []string{
		"", "slots", "slot", "slot create", "slot create a b", "slot create ../a", "card card", "card --yes",
		"slot list --nonsense", "slot create a --keys rsa,dsa", "slot create a --banks none", "raw",
		"raw --slot a --flush maybe", "slot show a --slot b",
	} {
		if got := r.run("", line); got.code != cli.ExitUsage || got.out != "" || got.err == "" {
			t.Errorf("vtpmctl %s: %+v, want exit code 2", line, got)
		}
	}
	if got := r.run("", "card --help"); got.code != cli.ExitOK || got.out != usage {
		t.Errorf("--help: %+v", got)
	}
	if got := r.run("", "--version"); got.code != cli.ExitOK || !strings.HasPrefix(got.out, "vtpmctl ") {
		t.Errorf("--version: %+v", got)
	}
	for _, c := range commands {
		if !strings.Contains(usage, "  "+c.words) {
			t.Errorf("--help does not mention %s", c.words)
		}
		for _, f := range c.flags {
			if !strings.Contains(usage, "--"+f) {
				t.Errorf("--help does not mention --%s", f)
			}
		}
	}
}

func TestNoDaemon(t *testing.T) {
	r := newRig(t)
	if got := r.run("", "card --socket "+t.TempDir()+"/none"); got.code != cli.ExitFailure || !strings.Contains(got.err, "HWVTPM_SOCKET") {
		t.Errorf("card without a daemon: %+v", got)
	}
	r.Hook(func(_ abi.Submission, a *coprocdtest.Answer) { a.Packets, a.Hang = nil, true })
	if got := r.run("", "card --timeout 50ms"); got.code != cli.ExitFailure || !strings.Contains(got.err, "timed out") {
		t.Errorf("card of a silent daemon: %+v", got)
	}
}
