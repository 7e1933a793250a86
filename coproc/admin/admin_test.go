// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/accesskey"
	"hwvtpm/coproc/admin"
	"hwvtpm/coproc/coprocd"
	"hwvtpm/coproc/coprocd/coprocdtest"
)

func client(t *testing.T) (*coprocdtest.Server, *admin.Client) {
	t.Helper()
	s := coprocdtest.Start(t)
	conn, err := coprocd.Dial(t.Context(), s.Path())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return s, admin.New(conn)
}

func request(name string) abi.SlotCreate {
	return abi.SlotCreate{Name: name, Keys: abi.DefaultKeys, Banks: abi.DefaultBanks, AccessKey: [32]byte{1}}
}

func TestLifeOfASlot(t *testing.T) {
	s, c := client(t)
	ctx := t.Context()
	info, err := c.Create(ctx, request("a"))
	if err != nil || info.Name != "a" || info.AccessKey != [32]byte{1} {
		t.Fatalf("Create = %+v, %v", info, err)
	}
	if got, err := c.Show(ctx, "a"); err != nil || got != info {
		t.Errorf("Show = %+v, %v, want %+v", got, err, info)
	}
	copied, err := c.Clone(ctx, info.Number, request("b"))
	if err != nil || copied.ID == info.ID {
		t.Errorf("Clone = %+v, %v", copied, err)
	}
	if err := errors.Join(c.Park(ctx, info), c.Lock(ctx, info), c.Adopt(ctx, info, "restored from tape")); err != nil {
		t.Error(err)
	}
	if got, _ := c.Show(ctx, "a"); got.Life != abi.LifeLocked || s.Card.Reason() != "restored from tape" {
		t.Errorf("after Lock and Adopt: %v, %q", got.Life, s.Card.Reason())
	}
	if err := c.Unlock(ctx, info); err != nil {
		t.Error(err)
	}
	st, body, err := c.Destroy(ctx, info)
	if err != nil || body.Name != "a" || st.Slot != info.ID {
		t.Errorf("Destroy = %+v, %+v, %v", st, body, err)
	}
	if _, err := c.Show(ctx, "a"); !errors.Is(err, coproc.ErrNotFound) {
		t.Errorf("Show after Destroy: %v, want ErrNotFound", err)
	}
}

// TestList: more slots than one answer takes, with gaps between their numbers.
func TestList(t *testing.T) {
	s, c := client(t)
	for i := range 50 {
		slot := s.Card.Add(fmt.Sprintf("slot-%d", i), [32]byte{})
		if i%3 == 0 {
			s.Card.Remove(slot.Info().Number)
		}
	}
	all, err := c.List(t.Context())
	if err != nil || len(all) != 33 {
		t.Fatalf("List = %d slots, %v, want 33", len(all), err)
	}
	for i, info := range all {
		if i > 0 && info.Number <= all[i-1].Number {
			t.Errorf("slot %d comes after %d", info.Number, all[i-1].Number)
		}
	}
}

// TestRefusals: the card's status and words come through.
func TestRefusals(t *testing.T) {
	_, c := client(t)
	ctx := t.Context()
	info, err := c.Create(ctx, request("a"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Create(ctx, request("a"))
	e, ok := errors.AsType[*coproc.Error](err)
	if !ok || !errors.Is(err, coproc.ErrExists) || e.Status != abi.StatusExists || e.Slot != "a" ||
		!strings.Contains(err.Error(), "called a already") {
		t.Errorf("Create of the same name: %v", err)
	}
	if err := c.Park(ctx, abi.SlotInfo{Number: 99, Name: "b"}); !errors.Is(err, coproc.ErrNotFound) {
		t.Errorf("Park of no slot: %v, want ErrNotFound", err)
	}
	for _, name := range []string{"", "../a", strings.Repeat("a", 64)} {
		if _, err := c.Show(ctx, name); !errors.Is(err, coproc.ErrNotFound) {
			t.Errorf("Show(%q): %v, want ErrNotFound", name, err)
		}
		if _, err := c.Create(ctx, request(name)); err == nil {
			t.Errorf("Create(%q) succeeded", name)
		}
	}
	for _, reason := range []string{"", "two\nlines", strings.Repeat("a", abi.MaxReason+1)} {
		if err := c.Adopt(ctx, info, reason); err == nil {
			t.Errorf("Adopt(%q) succeeded", reason)
		}
	}
}

func TestOpen(t *testing.T) {
	_, c := client(t)
	ctx := t.Context()
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	req := request("a")
	req.AccessKey = [32]byte(pub)
	info, err := c.Create(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	wrong := func(abi.Challenge) (abi.Proof, error) { return abi.Proof{}, nil }
	if _, _, err := c.Open(ctx, "a", wrong); !errors.Is(err, coproc.ErrDenied) {
		t.Errorf("Open with a wrong proof: %v, want ErrDenied", err)
	}
	none := func(abi.Challenge) (abi.Proof, error) { return abi.Proof{}, os.ErrNotExist }
	if _, _, err := c.Open(ctx, "a", none); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Open without a key: %v, want its error", err)
	}
	prove := func(ch abi.Challenge) (abi.Proof, error) { return accesskey.Prove(key, ch), nil }
	ch, files, err := c.Open(ctx, "a", prove)
	if err != nil || ch.ID != info.ID || len(files) != 2 {
		t.Fatalf("Open = %+v, %d files, %v", ch, len(files), err)
	}
	for _, f := range files {
		f.Close()
	}
}

func TestStatements(t *testing.T) {
	s, c := client(t)
	ctx := t.Context()
	info, err := c.Create(ctx, request("a"))
	if err != nil {
		t.Fatal(err)
	}
	st, body, err := c.EKStatement(ctx, info)
	if err != nil || abi.EKDigest(body.EKs) != info.EKNames || body.AccessKey != info.AccessKey || st.Key.Serial != st.Serial {
		t.Errorf("EKStatement = %+v, %+v, %v", st, body, err)
	}
	if _, health, err := c.HealthStatement(ctx); err != nil || health.Slots != 1 {
		t.Errorf("HealthStatement = %+v, %v", health, err)
	}
	// An old statement, one about another slot and one of another kind.
	var old []byte
	for name, want := range map[string]func(sub abi.Submission) []byte{
		"replayed":     func(abi.Submission) []byte { return st.Raw },
		"other slot":   func(sub abi.Submission) []byte { return resign(t, s, sub, func(x *abi.Statement) { x.Slot[0] ^= 1 }) },
		"other type":   func(sub abi.Submission) []byte { return resign(t, s, sub, func(x *abi.Statement) { x.Type = 4 }) },
		"other serial": func(sub abi.Submission) []byte { return resign(t, s, sub, func(x *abi.Statement) { x.Serial[0] ^= 1 }) },
		"changed": func(abi.Submission) []byte {
			old = bytes.Clone(st.Raw)
			old[24] ^= 1
			return old
		},
	} {
		s.Hook(func(sub abi.Submission, a *coprocdtest.Answer) {
			if sub.Op == abi.OpStatement {
				a.Packets[0] = coprocdtest.Completion(sub, abi.StatusOK, want(sub))
			}
		})
		if _, _, err := c.EKStatement(ctx, info); !errors.Is(err, abi.ErrMalformed) && !errors.Is(err, abi.ErrSignature) {
			t.Errorf("%s statement: %v, want an error", name, err)
		}
	}
}

func TestCertificates(t *testing.T) {
	s, c := client(t)
	ctx := t.Context()
	info, err := c.Create(ctx, request("a"))
	if err != nil {
		t.Fatal(err)
	}
	const handle = 0x81010001
	if got, err := c.EKCertificate(ctx, info, handle); err != nil || string(got.Public) != "public area" || len(got.DER) != 0 {
		t.Errorf("EKCertificate of a slot that has none: %+v, %v", got, err)
	}
	if err := c.Certify(ctx, info); err == nil || s.Card.Certificates() != nil {
		t.Errorf("Certify by a card without certificates: %v", err)
	}
	for name, chain := range map[string][][]byte{"nothing": nil, "empty": {nil, {}}, "long": {make([]byte, 3000), make([]byte, 1097)}} {
		if err := c.SetCertificates(ctx, chain); err == nil || s.Card.Certificates() != nil {
			t.Errorf("SetCertificates of %s: %v", name, err)
		}
	}
	if err := c.SetCertificates(ctx, [][]byte{[]byte("one"), []byte("two")}); err != nil || string(s.Card.Certificates()) != "onetwo" {
		t.Errorf("SetCertificates: %v, the card has %q", err, s.Card.Certificates())
	}
	if err := c.Certify(ctx, info); err != nil {
		t.Errorf("Certify: %v", err)
	}
	if got, err := c.EKCertificate(ctx, info, handle); err != nil || string(got.DER) != "certificate by onetwo" || got.Index != abi.IndexRSAEK {
		t.Errorf("EKCertificate = %+v, %v", got, err)
	}
	if _, err := c.EKCertificate(ctx, info, handle+1); !errors.Is(err, coproc.ErrNotFound) {
		t.Errorf("EKCertificate of no key: %v, want ErrNotFound", err)
	}
	s.Hook(func(sub abi.Submission, a *coprocdtest.Answer) {
		if sub.Op == abi.OpEKCertificate {
			other := abi.AppendEKCertificate(nil, &abi.EKCertificate{Handle: handle + 1})
			a.Packets[0] = coprocdtest.Completion(sub, abi.StatusOK, other)
		}
	})
	if _, err := c.EKCertificate(ctx, info, handle); !errors.Is(err, abi.ErrMalformed) {
		t.Errorf("answer about another key: %v, want ErrMalformed", err)
	}
}

// TestHealthStatementFor: the nonce is the caller's.
func TestHealthStatementFor(t *testing.T) {
	_, c := client(t)
	nonce := [32]byte{1, 2, 3}
	st, _, err := c.HealthStatementFor(t.Context(), nonce)
	if err != nil || st.Nonce != nonce {
		t.Errorf("HealthStatementFor = %+v, %v", st, err)
	}
	_, err = abi.VerifyStatement(st.Key.Public, st.Raw)
	if err != nil {
		t.Error(err)
	}
}

// resign has the card sign what answers sub, but for one change.
func resign(t *testing.T, s *coprocdtest.Server, sub abi.Submission, change func(*abi.Statement)) []byte {
	r, err := abi.ParseStatementRequest(sub.Payload)
	if err != nil {
		t.Error(err)
	}
	st := abi.Statement{Type: r.Type, Nonce: r.Nonce, Slot: s.Card.Slot("a").Info().ID, Serial: s.Card.Serial()}
	st.Body = abi.AppendEKBody(nil, &abi.EKBody{})
	change(&st)
	return s.Card.Sign(&st)
}
