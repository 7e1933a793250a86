// SPDX-License-Identifier: Apache-2.0

package hostpcr

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
)

var nonceA, nonceB = bytes.Repeat([]byte{0xa}, 32), bytes.Repeat([]byte{0xb}, 32)

// TestRead: a machine's log leads to its PCRs, in all banks that it has digests for.
func TestRead(t *testing.T) {
	log := testLog(t, "ovmf-4banks.bin")
	f := newFake(t, log)
	f.most, f.retries = 3, 2
	f.used[3] = true // and nothing was ever measured there that could be replayed
	f.pcrs[3][0][63] = 1
	r, err := newHost(t, f, log).Read(t.Context(), nonceA)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Quote.Fresh(nonceA) || r.Quote.Fresh(nonceB) || !bytes.Equal(r.Log, log) {
		t.Error("the quote is not for the nonce alone")
	}
	if want := abi.BankSHA1 | abi.BankSHA256 | abi.BankSHA384 | abi.BankSHA512; r.Values.Banks() != want {
		t.Errorf("values of %v, want %v", r.Values.Banks(), want)
	}
	m, err := r.Map()
	if want := abi.BankSHA1 | abi.BankSHA256 | abi.BankSHA384; err != nil || m.Banks() != want {
		t.Fatalf("to be mapped: %v, %v, want %v", m.Banks(), err, want)
	}
	// What the same machine's TPM said.
	for line := range strings.Lines(string(testLog(t, "ovmf-4banks.sha256pcrs"))) {
		var pcr int
		var value string
		if _, err := fmt.Sscan(line, &pcr, &value); err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(m.Value(abi.BankSHA256, pcr)); pcr < abi.HostPCRs && got != value {
			t.Errorf("PCR %d = %s, want %s", pcr, got, value)
		}
	}
}

// TestMapRefused: what the log does not explain is not mapped.
func TestMapRefused(t *testing.T) {
	good := testLog(t, "ovmf-4banks.bin")
	tampered := bytes.Clone(good)
	f := newFake(t, good)
	at := bytes.Index(tampered, []byte("\x0b\x00")) // SHA-256, little-endian; the first is in the header
	at += 40 + bytes.Index(tampered[at+40:], []byte("\x0b\x00"))
	tampered[at+10] ^= 1
	for _, tc := range []struct {
		name string
		log  []byte
		tpm  func(*fake)
		want error
	}{
		{"no log", nil, nil, ErrLog},
		{"no log at all", []byte("no log at all"), nil, ErrLog},
		{"cut", good[:len(good)-3], nil, ErrLog},
		{"tampered", tampered, nil, ErrLog},
		{"extended after the log", good, func(f *fake) { f.pcrs[1][7][0] ^= 1 }, ErrLog},
		{"SHA-384 extended alone", good, func(f *fake) { f.pcrs[2][7][0] ^= 1 }, ErrLog},
		{"SHA-1 only", good, func(f *fake) { f.used = [len(banks)]bool{true} }, ErrWeak},
		{"SHA-512 only", good, func(f *fake) { f.used = [len(banks)]bool{3: true} }, ErrLog},
	} {
		g := newFake(t, good)
		g.key = f.key
		if tc.tpm != nil {
			tc.tpm(g)
		}
		r, err := newHost(t, g, tc.log).Read(t.Context(), nonceA)
		if err != nil {
			t.Errorf("%s: Read: %v", tc.name, err)
			continue
		}
		if m, err := r.Map(); !errors.Is(err, tc.want) || m != (coproc.PCRMap{}) {
			t.Errorf("%s: Map: %v, %v, want %v", tc.name, m.Banks(), err, tc.want)
		}
	}
}

// TestWeakBank: a SHA-1 bank that does not replay costs that bank only, and
// is enough alone only if somebody says so.
func TestWeakBank(t *testing.T) {
	log := testLog(t, "ovmf-4banks.bin")
	f := newFake(t, log)
	f.pcrs[0][5][0] ^= 1
	r, err := newHost(t, f, log).Read(t.Context(), nonceA)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := r.Map(); err != nil || m.Banks() != abi.BankSHA256|abi.BankSHA384 {
		t.Errorf("Map: %v, %v", m.Banks(), err)
	}
	f = newFake(t, log)
	f.used = [len(banks)]bool{true}
	h := newHost(t, f, log)
	h.cfg.AllowSHA1 = true
	if r, err = h.Read(t.Context(), nonceA); err != nil {
		t.Fatal(err)
	}
	if m, err := r.Map(); err != nil || m.Banks() != abi.BankSHA1 {
		t.Errorf("Map: %v, %v", m.Banks(), err)
	}
}

// TestPCRWithoutEvents: a value that no event leads to is not explained by a log
// that does not mention its PCR.
func TestPCRWithoutEvents(t *testing.T) {
	log := testLog(t, "ovmf-sha256.bin")
	f := newFake(t, log)
	f.used = [len(banks)]bool{1: true}
	var m coproc.PCRMap
	values := f.pcrs[1][:abi.HostPCRs]
	if err := m.SetBank(abi.BankSHA256, values); err != nil {
		t.Fatal(err)
	}
	if v, err := Replay(log, &m); err != nil || !v[0].Replayed {
		t.Fatalf("Replay: %+v, %v", v, err)
	}
	// The last events, of the end of the boot services, are ones that go-eventlog
	// adds itself to a log that ends early, since some firmware's does.
	const firmwareOnly = 1600
	without := 0
	for n := 1; n < firmwareOnly; n++ {
		v, err := Replay(log[:n], &m)
		if err == nil && v[0].Replayed {
			t.Fatalf("%d of %d bytes of the log lead to the same PCRs", n, len(log))
		}
		if err == nil && strings.Contains(v[0].Reason, "no events") {
			without++
		}
	}
	if without == 0 {
		t.Error("no prefix of the log was refused for a PCR that it does not mention")
	}
}

// TestBadQuotes: values that the TPM does not vouch for, now and to us, are none.
func TestBadQuotes(t *testing.T) {
	log := testLog(t, "ovmf-4banks.bin")
	old := tpm2.TPM2BData{Buffer: make([]byte, 32)}
	for _, tc := range []struct {
		name string
		tpm  func(*fake)
		want error
	}{
		{"of another time", func(f *fake) { f.attest = func(a *tpm2.TPMSAttest) { a.ExtraData = old } }, ErrQuote},
		{"of something else", func(f *fake) { f.attest = func(a *tpm2.TPMSAttest) { a.Magic++ } }, ErrQuote},
		{"of other PCRs", func(f *fake) {
			f.attest = func(a *tpm2.TPMSAttest) {
				q, _ := a.Attested.Quote()
				q.PCRSelect.PCRSelections[1].PCRSelect[0] = 0x7f
			}
		}, ErrQuote},
		{"of fewer banks", func(f *fake) {
			f.attest = func(a *tpm2.TPMSAttest) {
				q, _ := a.Attested.Quote()
				q.PCRSelect.PCRSelections = q.PCRSelect.PCRSelections[:2]
			}
		}, ErrQuote},
		{"of PCRs that never stand still", func(f *fake) { f.after = func(int) { f.pcrs[2][7][0]++ } }, errOtherValues},
		{"of another key", func(f *fake) {
			f.key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		}, ErrQuote},
		{"that never come", func(f *fake) { f.retries = 9 }, ErrTPM},
		{"with no banks", func(f *fake) { f.used = [len(banks)]bool{} }, ErrTPM},
		{"with no values", func(f *fake) { f.most = 0 }, ErrTPM},
	} {
		f := newFake(t, log)
		h := newHost(t, f, log)
		tc.tpm(f)
		if r, err := h.Read(t.Context(), nonceA); !errors.Is(err, tc.want) || r != nil {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
}

// TestPCRChangesOnce: a change between reading and quoting is no more than a delay.
func TestPCRChangesOnce(t *testing.T) {
	log := testLog(t, "ovmf-4banks.bin")
	f := newFake(t, log)
	f.pcrs[2][7][0] ^= 1
	f.after = func(n int) {
		if n == 3 { // all banks were read once
			f.pcrs[2][7][0] ^= 1
		}
	}
	r, err := newHost(t, f, log).Read(t.Context(), nonceA)
	if err != nil || f.quotes != 2 {
		t.Fatalf("Read: %v after %d quotes", err, f.quotes)
	}
	if _, err := r.Map(); err != nil {
		t.Error(err)
	}
}

// TestBatch: whoever waits while the TPM quotes shares the next quote, and nobody gets
// one that was begun before it asked.
func TestBatch(t *testing.T) {
	log := testLog(t, "ovmf-4banks.bin")
	f := newFake(t, log)
	f.gate, f.quoting = make(chan struct{}), make(chan struct{}, 9)
	h := newHost(t, f, log)
	h.cfg.Share = true
	var wg sync.WaitGroup
	read := func(i byte) {
		nonce := bytes.Repeat([]byte{i}, MinNonce)
		r, err := h.Read(t.Context(), nonce)
		if err != nil || !r.Quote.Fresh(nonce) {
			t.Errorf("caller %d: %v, or the quote is not for it", i, err)
		}
	}
	wg.Go(func() { read(0) })
	<-f.quoting
	const waiting = 20
	for i := range byte(waiting) {
		wg.Go(func() { read(i + 1) })
	}
	joined := func() int {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.next == nil {
			return 0
		}
		return len(h.next.nonces)
	}
	for joined() < waiting {
		time.Sleep(time.Millisecond)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Read(gone, nonceA); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that goes: %v, want context.Canceled", err)
	}
	close(f.gate)
	wg.Wait()
	if f.quotes != 2 {
		t.Errorf("%d quotes for %d callers, want 2", f.quotes, waiting+1)
	}
}

// TestAlone: callers that do not share get a quote each, and the nonce is in it as it
// is.
func TestAlone(t *testing.T) {
	log := testLog(t, "ovmf-4banks.bin")
	f := newFake(t, log)
	var extra sync.Map
	f.attest = func(a *tpm2.TPMSAttest) { extra.Store(string(a.ExtraData.Buffer), true) }
	h := newHost(t, f, log)
	var wg sync.WaitGroup
	const callers = 8
	for i := range byte(callers) {
		wg.Go(func() {
			nonce := bytes.Repeat([]byte{i}, MaxNonce)
			r, err := h.Read(t.Context(), nonce)
			if err != nil || !r.Quote.Fresh(nonce) || r.Quote.Leaves != nil {
				t.Errorf("caller %d: %v, or the quote is not for it", i, err)
			}
			if _, ok := extra.Load(string(nonce)); !ok {
				t.Errorf("caller %d: the nonce is not the qualifying data", i)
			}
		})
	}
	wg.Wait()
	if f.quotes != callers {
		t.Errorf("%d quotes for %d callers", f.quotes, callers)
	}
}

// TestLeft: callers that ask and go cost the TPM nothing, and neither do those that wait
// when the Host is closed.
func TestLeft(t *testing.T) {
	log := testLog(t, "ovmf-4banks.bin")
	f := newFake(t, log)
	f.gate, f.quoting = make(chan struct{}), make(chan struct{}, 99)
	h := newHost(t, f, log)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := h.Read(t.Context(), nonceA); err != nil {
			t.Error(err)
		}
	})
	<-f.quoting
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 {
		if _, err := h.Read(gone, nonceA); !errors.Is(err, context.Canceled) {
			t.Errorf("a caller that goes: %v, want context.Canceled", err)
		}
	}
	waits, err := h.join(nonceA, false)
	if err != nil {
		t.Fatal(err)
	}
	wg.Go(func() { h.Close() })
	closed := func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.closed
	}
	for !closed() {
		time.Sleep(time.Millisecond)
	}
	close(f.gate)
	wg.Wait()
	if <-waits.done; !errors.Is(waits.err, ErrClosed) {
		t.Errorf("a caller that waits at the end: %v, want ErrClosed", waits.err)
	}
	if f.quotes != 1 {
		t.Errorf("%d quotes, want one", f.quotes)
	}
}

func TestRecent(t *testing.T) {
	log := testLog(t, "ovmf-4banks.bin")
	f := newFake(t, log)
	h := newHost(t, f, log)
	first, err := h.Recent(t.Context(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := h.Recent(t.Context(), time.Hour); err != nil || again != first {
		t.Errorf("what is young enough was not used again: %v", err)
	}
	if other, err := h.Recent(t.Context(), 0); err != nil || other == first || f.quotes != 2 {
		t.Errorf("what is too old was used again: %v", err)
	}
	h.Close()
	h.Close()
	if _, err := h.Read(t.Context(), nonceA); !errors.Is(err, ErrClosed) {
		t.Errorf("Read after Close: %v, want ErrClosed", err)
	}
}

func TestNonceSizes(t *testing.T) {
	h := newHost(t, newFake(t, testLog(t, "ovmf-4banks.bin")), nil)
	for _, n := range []int{0, MinNonce - 1, MaxNonce + 1} {
		if _, err := h.Read(t.Context(), make([]byte, n)); err == nil {
			t.Errorf("a nonce of %d bytes was taken", n)
		}
	}
}

func TestParseMode(t *testing.T) {
	for _, m := range []Mode{ModeMap, ModeEvidence, ModeOff} {
		if got, err := ParseMode(string(m)); err != nil || got != m {
			t.Errorf("ParseMode(%s) = %s, %v", m, got, err)
		}
	}
	if _, err := ParseMode("Map"); err == nil {
		t.Error("ParseMode took what is none")
	}
}

func FuzzReplay(f *testing.F) {
	for _, name := range []string{"ovmf-4banks.bin", "ovmf-sha256.bin"} {
		f.Add(testLog(f, name), 0, []byte{})
		f.Add(testLog(f, name), 300, []byte{0xff, 0xff})
	}
	var m coproc.PCRMap
	if err := m.SetBank(abi.BankSHA256, newFake(f, testLog(f, "ovmf-4banks.bin")).pcrs[1][:abi.HostPCRs]); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, log []byte, at int, put []byte) {
		log = bytes.Clone(log)
		if at >= 0 && at < len(log) {
			copy(log[at:], put)
		}
		v, err := Replay(log, &m)
		if err == nil && len(v) != 1 {
			t.Errorf("%d verdicts on one bank", len(v))
		}
	})
}

func FuzzQuote(f *testing.F) {
	fk := newFake(f, testLog(f, "ovmf-4banks.bin"))
	r, err := newHost(f, fk, nil).Read(f.Context(), nonceA)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(r.Quote.Attest, r.Quote.Signature)
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, attest, sig []byte) {
		q := Quote{Attest: attest, Signature: sig, Nonce: nonceA}
		if err := q.Verify(&fk.key.PublicKey, &r.Values); err != nil && !errors.Is(err, ErrQuote) {
			t.Errorf("Verify: %v", err)
		}
	})
}

// TestReadAlone: a quote for a protocol that has no room for leaves is not shared,
// though others wait for the TPM too.
func TestReadAlone(t *testing.T) {
	log := testLog(t, "ovmf-4banks.bin")
	f := newFake(t, log)
	h := newHost(t, f, log)
	h.cfg.Share = true
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if r, err := h.Read(t.Context(), nonceA); err != nil || len(r.Quote.Leaves) == 0 {
				t.Errorf("Read: %v", err)
			}
			if r, err := h.ReadAlone(t.Context(), nonceB); err != nil || !bytes.Equal(r.Quote.Qualifying(), nonceB) {
				t.Errorf("ReadAlone: %v", err)
			}
		})
	}
	wg.Wait()
}
