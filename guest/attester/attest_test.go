// SPDX-License-Identifier: Apache-2.0

package attester

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/vtpm/attest"
)

// What a machine answers holds for whoever trusts the root, with all banks and
// PCR 0-15 if nothing else was asked for.
func TestMachine(t *testing.T) {
	r, a := enrolled(t)
	m, err := a.Machine(t.Context(), nonce, Selection{}, []byte("log"))
	r.fatal(err)
	name, err := attest.CheckMachine(m, nonce, r.Authority.Roots(), time.Now())
	if name != vm || err != nil {
		t.Errorf("CheckMachine: %q, %v", name, err)
	}
	for bank, size := range map[string]int{"sha256": 32, "sha384": 48} {
		for n := range 24 {
			if v := m.PCRs.Get(bank, n); n < 16 && len(v) != size || n >= 16 && v != nil {
				t.Errorf("PCR %d of %s is %x", n, bank, v)
			}
		}
	}
	if string(m.Log) != "log" {
		t.Errorf("log %q", m.Log)
	}
	one, err := a.Machine(t.Context(), nonce, Selection{Banks: []string{"sha256"}, PCRs: []uint{0, 1, 2, 3, 4, 5, 6, 7, 23}}, nil)
	r.fatal(err)
	if len(one.PCRs) != 1 || len(one.PCRs["sha256"]) != 9 {
		t.Errorf("PCRs %v", one.PCRs)
	}
	if n := r.Loaded(); n != 0 {
		t.Errorf("%d objects and sessions stay in the TPM", n)
	}
}

// A PCR that is extended between the values and the quote makes another try; one
// that is extended each time makes an error.
func TestPCRsChange(t *testing.T) {
	r, a := enrolled(t)
	quotes := 0
	r.Bus.Before = func(cmd tpm2.TPMCC) {
		if cmd == tpm2.TPMCCQuote {
			if quotes++; quotes <= 2 {
				r.Extend(8)
			}
		}
	}
	m, err := a.Machine(t.Context(), nonce, Selection{}, nil)
	r.fatal(err)
	if _, err := attest.CheckMachine(m, nonce, r.Authority.Roots(), time.Now()); err != nil || quotes != 3 {
		t.Errorf("after %d quotes: %v", quotes, err)
	}
	quotes = -maxQuotes
	if _, err := a.Machine(t.Context(), nonce, Selection{}, nil); !errors.Is(err, errChanged) {
		t.Errorf("with PCRs that change all the time: %v", err)
	}
}

func TestBadRequests(t *testing.T) {
	r, a := enrolled(t)
	for name, tc := range map[string]struct {
		nonce []byte
		s     Selection
		want  error
	}{
		"short nonce":  {nonce[:15], Selection{}, attest.ErrNonce},
		"long nonce":   {bytes.Repeat(nonce, 3), Selection{}, attest.ErrNonce},
		"unknown bank": {nonce, Selection{Banks: []string{"md5"}}, ErrSelection},
		"PCR 24":       {nonce, Selection{PCRs: []uint{24}}, ErrSelection},
	} {
		if _, err := a.Machine(t.Context(), tc.nonce, tc.s, nil); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	if len(r.Requests()) != 2 {
		t.Errorf("the host was asked %v", r.Requests())
	}
}

// answer is a TPM that gives one answer.
type answer []byte

func (a answer) Send([]byte) ([]byte, error) { return a, nil }

// A TPM has some banks, and lists others without PCRs.
func TestBanks(t *testing.T) {
	tpm := answer("\x80\x01\x00\x00\x00\x1f\x00\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x02\x00\x0b\x03\xff\xff\xff\x00\x0c\x03\x00\x00\x00")
	for name, good := range map[string]bool{"": true, "sha256": true, "sha384": false, "sha512": false} {
		var s Selection
		if name != "" {
			s.Banks = []string{name}
		}
		got, err := s.of(tpm)
		if good && (err != nil || len(got.PCRSelections) != 1 || got.PCRSelections[0].Hash != tpm2.TPMAlgSHA256) || !good && !errors.Is(err, ErrSelection) {
			t.Errorf("%q: %+v, %v", name, got, err)
		}
	}
}

func TestComplete(t *testing.T) {
	r, a := enrolled(t)
	m, err := a.Machine(t.Context(), nonce, Selection{}, nil)
	r.fatal(err)
	ev, err := Complete(t.Context(), r, m, nonce, attest.ModeOff)
	r.fatal(err)
	if !slices.Equal(ev.VM.Quote.Attest, m.Quote.Attest) || ev.PCRMap != attest.ModeOff {
		t.Errorf("evidence %+v", ev)
	}
	for name, spoil := range map[string]func(*attest.Evidence){
		"another quote": func(ev *attest.Evidence) { ev.VM.Quote.Attest[0] ^= 1 },
		"no evidence":   func(ev *attest.Evidence) { *ev = attest.Evidence{} },
	} {
		r.Spoil = func(_ string, answer any) { spoil(answer.(*attest.Evidence)) }
		if _, err := Complete(t.Context(), r, m, nonce, ""); !errors.Is(err, ErrAnswer) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Complete(t.Context(), gone{}, m, nonce, ""); !errors.Is(err, errHost) {
		t.Errorf("a host that is gone: %v", err)
	}
}

func TestManyAtOnce(t *testing.T) {
	r, a := enrolled(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := a.Machine(t.Context(), nonce, Selection{}, nil); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if _, err := a.EK(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := r.Loaded(); n != 0 {
		t.Errorf("%d objects and sessions stay in the TPM", n)
	}
}

func TestReadLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if _, err := ReadLog(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a log: %v", err)
	}
	for size, good := range map[int]bool{0: true, 100: true, MaxLog: true, MaxLog + 1: false} {
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		if log, err := ReadLog(path); (err == nil) != good || good && len(log) != size {
			t.Errorf("a log of %d bytes: %d, %v", size, len(log), err)
		}
	}
}
