// SPDX-License-Identifier: Apache-2.0

package bootevidence_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/vtpm/bootevidence"
	"hwvtpm/vtpm/bootevidence/bootevidencetest"
	"hwvtpm/vtpm/hostpcr"
)

var update = flag.Bool("update", false, "write testdata anew")

const (
	goldenEvidence = "testdata/evidence.bin"
	goldenKey      = "testdata/key.der"
)

var run = coproc.RunID{1, 2, 3}

// made is evidence with its wire form.
func made(t testing.TB, h *bootevidencetest.Host) (*bootevidence.Evidence, []byte) {
	t.Helper()
	e, err := h.Evidence(run, "vm-a")
	if err != nil {
		t.Fatal(err)
	}
	b, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return e, b
}

func same(a, b *bootevidence.Evidence) bool {
	return a.Run == b.Run && a.Slot == b.Slot && a.AIK == b.AIK && a.PCRs == b.PCRs &&
		bytes.Equal(a.Attest, b.Attest) && bytes.Equal(a.Signature, b.Signature)
}

// TestRoundTrip: what was made is what is read, also from an NV index, which is
// longer; and the host's key verifies it, for this run and this machine.
func TestRoundTrip(t *testing.T) {
	h := bootevidencetest.New(t, 0x10)
	want, b := made(t, h)
	if want.AIK != sha256.Sum256([]byte("certificate")) {
		t.Errorf("the certificate's hash is %x", want.AIK)
	}
	for _, padding := range []int{0, 1, abi.MaxBootEvidence - len(b)} {
		got, err := bootevidence.Parse(append(bytes.Clone(b), make([]byte, padding)...))
		if err != nil || !same(got, want) {
			t.Fatalf("with %d zeros: %+v, %v, want %+v", padding, got, err, want)
		}
		if err := got.Verify(&h.Key.PublicKey); err != nil {
			t.Errorf("verify: %v", err)
		}
	}
	for name, change := range map[string]func(*bootevidence.Evidence){
		"another run":     func(e *bootevidence.Evidence) { e.Run[0]++ },
		"another machine": func(e *bootevidence.Evidence) { e.Slot = "vm-b" },
		"other PCRs":      func(e *bootevidence.Evidence) { e.PCRs = bootevidencetest.New(t, 0x20).PCRs },
		"another quote":   func(e *bootevidence.Evidence) { e.Attest[len(e.Attest)-1]++ },
	} {
		e, _ := made(t, h)
		change(e)
		if err := e.Verify(&h.Key.PublicKey); !errors.Is(err, hostpcr.ErrQuote) {
			t.Errorf("%s: %v, want ErrQuote", name, err)
		}
	}
	if err := want.Verify(&bootevidencetest.New(t, 0x10).Key.PublicKey); !errors.Is(err, hostpcr.ErrQuote) {
		t.Errorf("another key: %v, want ErrQuote", err)
	}
}

// TestNew: evidence is made of the quote that was asked for, and of nothing that does
// not fit.
func TestNew(t *testing.T) {
	h := bootevidencetest.New(t, 0x10)
	nonce := bootevidence.Qualifying(run, "vm-a")
	good, err := h.Quote(nonce[:])
	if err != nil {
		t.Fatal(err)
	}
	e, err := bootevidence.New(run, "vm-a", nil, good, &h.PCRs)
	if err != nil || e.AIK != [32]byte{} {
		t.Fatalf("without a certificate: %v, %v", e, err)
	}
	if _, err := bootevidence.New(run, "vm-b", nil, good, &h.PCRs); err == nil {
		t.Error("a quote for another machine is taken")
	}
	long := *good
	long.Signature = make([]byte, 1500)
	for name, try := range map[string]func() error{
		"no name":     func() error { _, err := h.Evidence(run, ""); return err },
		"long name":   func() error { _, err := h.Evidence(run, strings.Repeat("x", abi.MaxName+1)); return err },
		"no values":   func() error { _, err := bootevidence.New(run, "vm-a", nil, good, &coproc.PCRMap{}); return err },
		"no room":     func() error { _, err := bootevidence.New(run, "vm-a", nil, &long, &h.PCRs); return err },
		"longest one": func() error { _, err := h.Evidence(run, strings.Repeat("x", abi.MaxName)); return err },
	} {
		if err := try(); errors.Is(err, bootevidence.ErrMalformed) != (name != "longest one") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestGolden: every version reads what the first one wrote.
func TestGolden(t *testing.T) {
	if *update {
		h := bootevidencetest.New(t, 0x10)
		_, b := made(t, h)
		key, err := x509.MarshalPKIXPublicKey(&h.Key.PublicKey)
		if err := errors.Join(err, os.WriteFile(goldenEvidence, b, 0o644), os.WriteFile(goldenKey, key, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(goldenEvidence)
	if err != nil {
		t.Fatal(err)
	}
	der, err := os.ReadFile(goldenKey)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		t.Fatal(err)
	}
	e, err := bootevidence.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if e.Run != run || e.Slot != "vm-a" || e.PCRs != bootevidencetest.New(t, 0x10).PCRs {
		t.Errorf("it says %x, %s, %v", e.Run, e.Slot, e.PCRs.Banks())
	}
	if err := e.Verify(key.(*ecdsa.PublicKey)); err != nil {
		t.Error(err)
	}
	if again, err := e.Marshal(); err != nil || !bytes.Equal(again, b) {
		t.Errorf("written again: %x, %v, want %x", again, err, b)
	}
}

// TestMalformed: each byte of the form counts.
func TestMalformed(t *testing.T) {
	_, good := made(t, bootevidencetest.New(t, 0x10))
	at := func(i int, v byte) []byte {
		b := bytes.Clone(good)
		b[i] = v
		return b
	}
	banks := len(good) - 8*(20+32+48) - 3*2 - 2
	for name, b := range map[string][]byte{
		"nothing":          nil,
		"magic":            at(0, 'h'),
		"version":          at(9, 2),
		"size too large":   at(11, good[11]+1),
		"size too small":   at(11, good[11]-1),
		"size of nothing":  at(10, 0),
		"no name":          at(77, 0),
		"name too long":    at(76, 0xff),
		"behind it":        append(bytes.Clone(good), 0, 1),
		"cut":              good[:len(good)-1],
		"more than fits":   append(bytes.Clone(good), make([]byte, abi.MaxBootEvidence)...),
		"a bank more":      at(banks+1, 4),
		"a bank less":      at(banks+1, 2),
		"many banks":       at(banks, 1),
		"unknown bank":     at(banks+3, 0x12),
		"banks in another": at(banks+3, 0x0d),
	} {
		if e, err := bootevidence.Parse(b); !errors.Is(err, bootevidence.ErrMalformed) {
			t.Errorf("%s: %+v, %v, want ErrMalformed", name, e, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	b, err := os.ReadFile(goldenEvidence)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(append(bytes.Clone(b), 0, 0, 0))
	f.Add(b[:80])
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := bootevidence.Parse(b)
		if err != nil {
			return
		}
		again, err := e.Marshal()
		if err != nil || !bytes.HasPrefix(b, again) {
			t.Errorf("%x was read, and is %x, %v", b, again, err)
		}
	})
}
