// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/sealed"
)

func bytesOf(t *rapid.T, n int, name string) []byte {
	return rapid.SliceOfN(rapid.ByteRange(1, 255), n, n).Draw(t, name)
}

// drawSetup gives a Setup that means something.
func drawSetup(t *rapid.T) Setup {
	s := Setup{
		Flags: rapid.SampledFrom([]SetupFlags{0, Create, Clone, Greeted, Greeted | Powered, Greeted | Failed, Create | GenericCurves,
			Create | Certifies, Recertify | Certifies}).Draw(t, "flags"),
		Slot:  sealed.SlotID(bytesOf(t, 16, "slot")),
		Key:   [32]byte(bytesOf(t, 32, "key")),
		Boot:  [16]byte(bytesOf(t, 16, "boot")),
		Keys:  abi.Keys(rapid.Uint32Range(0, uint32(abi.DefaultKeys)).Draw(t, "keys")),
		Banks: abi.Banks(rapid.Uint32Range(1, 15).Draw(t, "banks")),
	}
	for _, p := range []*uint64{&s.Epoch, &s.MinEpoch, &s.MinGeneration, &s.MinSeq, &s.UsedGeneration} {
		*p = rapid.Uint64().Draw(t, "number")
	}
	if s.Flags&Create == 0 {
		s.BlobLen = rapid.Uint32Range(1, MaxBlob).Draw(t, "blob")
	}
	if s.Flags&Clone != 0 {
		s.Source = sealed.SlotID(bytesOf(t, 16, "source"))
		s.SourceKey = [32]byte(bytesOf(t, 32, "source key"))
	}
	return s
}

func TestSetupRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawSetup(t)
		got, err := ParseSetup(AppendSetup(nil, &want))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("changed on the way (-want +got):\n%s", d)
		}
	})
}

func TestReadyRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := Ready{
			Status:     abi.Status(rapid.Uint16().Draw(t, "status")),
			Generation: rapid.Uint64().Draw(t, "generation"),
			Epoch:      rapid.Uint64().Draw(t, "epoch"),
			Text:       string(rapid.SliceOfN(rapid.ByteRange(' ', '~'), 0, MaxText).Draw(t, "text")),
		}
		for range rapid.IntRange(0, abi.MaxEKs).Draw(t, "keys") {
			n := rapid.IntRange(1, abi.MaxEKName).Draw(t, "size")
			want.EKs = append(want.EKs, abi.EK{Handle: rapid.Uint32().Draw(t, "handle"), Name: bytesOf(t, n, "name")})
		}
		b := AppendReady(nil, &want)
		if len(b) > MaxMessage {
			t.Fatalf("%d bytes", len(b))
		}
		got, err := ParseReady(b)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("changed on the way (-want +got):\n%s", d)
		}
	})
}

func TestReadyIsCut(t *testing.T) {
	r, err := ParseReady(AppendReady(nil, &Ready{Text: strings.Repeat("x", MaxText+1), EKs: make([]abi.EK, abi.MaxEKs+1)}))
	if err != nil || len(r.Text) != MaxText || len(r.EKs) != abi.MaxEKs {
		t.Errorf("%d bytes of text and %d keys, %v", len(r.Text), len(r.EKs), err)
	}
}

// TestSetupThatContradictsItself: none of these is taken.
func TestSetupThatContradictsItself(t *testing.T) {
	good := func() Setup {
		return Setup{Slot: sealed.SlotID{1}, Key: [32]byte{1}, BlobLen: 100, Keys: abi.DefaultKeys, Banks: abi.DefaultBanks}
	}
	for name, change := range map[string]func(*Setup){
		"unknown flag":           func(s *Setup) { s.Flags = 1 << 20 },
		"create and clone":       func(s *Setup) { s.Flags = Create | Clone },
		"create, powered":        func(s *Setup) { s.Flags, s.BlobLen = Create|Greeted|Powered, 0 },
		"powered, not greeted":   func(s *Setup) { s.Flags = Powered },
		"failed, not greeted":    func(s *Setup) { s.Flags = Failed },
		"failed and powered":     func(s *Setup) { s.Flags = Greeted | Powered | Failed },
		"no state":               func(s *Setup) { s.BlobLen = 0 },
		"create with a state":    func(s *Setup) { s.Flags = Create },
		"create without banks":   func(s *Setup) { s.Flags, s.BlobLen, s.Banks = Create, 0, 0 },
		"state too large":        func(s *Setup) { s.BlobLen = MaxBlob + 1 },
		"unknown key":            func(s *Setup) { s.Keys = 1 << 30 },
		"no id":                  func(s *Setup) { s.Slot = sealed.SlotID{} },
		"no key":                 func(s *Setup) { s.Key = [32]byte{} },
		"clone without a source": func(s *Setup) { s.Flags = Clone },
		"two tasks":              func(s *Setup) { s.Flags = Import | Recertify | Certifies },
		"recertify, powered":     func(s *Setup) { s.Flags = Recertify | Certifies | Greeted | Powered },
		"recertify alone":        func(s *Setup) { s.Flags = Recertify },
		"serve and certify":      func(s *Setup) { s.Flags = Certifies },
	} {
		s := good()
		change(&s)
		if got, err := ParseSetup(AppendSetup(nil, &s)); !errors.Is(err, ErrMalformed) || got != (Setup{}) {
			t.Errorf("%s: %+v, %v, want ErrMalformed", name, got.Flags, err)
		}
	}
	s := good()
	if _, err := ParseSetup(AppendSetup(nil, &s)); err != nil {
		t.Errorf("without a change: %v", err)
	}
}

// TestGolden keeps the bytes: a card and its workers may be updated one after
// the other.
func TestGolden(t *testing.T) {
	setup := Setup{
		Flags: Clone | GenericCurves, Slot: sealed.SlotID{0: 1, 15: 2}, Key: [32]byte{0: 3, 31: 4},
		Source: sealed.SlotID{0: 5, 15: 6}, SourceKey: [32]byte{0: 7, 31: 8}, Boot: [16]byte{0: 9, 15: 10},
		Epoch: 0x0b0b, MinEpoch: 0x0c0c, MinGeneration: 0x0d0d, MinSeq: 0x0e0e, UsedGeneration: 0x0f0f,
		BlobLen: 0x1010, Keys: abi.DefaultKeys, Banks: abi.DefaultBanks,
	}
	ready := Ready{Status: abi.StatusRollback, Generation: 0x1111, Epoch: 0x1212,
		EKs: []abi.EK{{Handle: 0x81010001, Name: []byte{0, 11, 0xaa}}}, Text: "why"}
	for name, b := range map[string][]byte{
		"setup": AppendSetup(nil, &setup),
		"ready": AppendReady(nil, &ready),
		"short": AppendPark(AppendSaved(AppendSave(nil, Save{Length: 0x1234}), Saved{abi.StatusStorage})),
		"certify": AppendCertified(AppendCertify(nil, &Certify{
			ListLen: 0x1313, ChainLen: 0x1414, Maker: 0x49424d00, Firmware: 0x20191023, Level: 1, Revision: 164,
		}), Certified{abi.StatusOK, 0x1515, 0x616}),
	} {
		path := filepath.Join("testdata", name+".hex")
		want, err := os.ReadFile(path)
		if err != nil {
			t.Errorf("%v; it would be:\n%s", err, hex.Dump(b))
			continue
		}
		if got := hex.Dump(b); got != string(want) {
			t.Errorf("%s (-want +got):\n%s", name, cmp.Diff(string(want), got))
		}
	}
}

// TestCertifyTooLong: lengths that the shared memory does not have.
func TestCertifyTooLong(t *testing.T) {
	for _, c := range []Certify{{ListLen: MaxBlob + 1}, {ListLen: 1, ChainLen: MaxBlob}, {ListLen: 0xffffffff, ChainLen: 2}} {
		if _, err := ParseCertify(AppendCertify(nil, &c)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%+v: %v, want ErrMalformed", c, err)
		}
	}
	for _, c := range []Certified{{ListLen: MaxBlob + 1}, {ChainLen: MaxChain + 1}, {ListLen: MaxBlob, ChainLen: 1}} {
		if _, err := ParseCertified(AppendCertified(nil, c)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%+v: %v, want ErrMalformed", c, err)
		}
	}
}

func FuzzMessages(f *testing.F) {
	s := Setup{Slot: sealed.SlotID{1}, Key: [32]byte{1}, BlobLen: 100, Banks: abi.DefaultBanks}
	f.Add(AppendSetup(nil, &s))
	f.Add(AppendReady(nil, &Ready{EKs: []abi.EK{{Handle: 1, Name: []byte("name")}}, Text: "text"}))
	f.Add(AppendSave(nil, Save{Length: 7, Older: true}))
	f.Add(AppendSaved(nil, Saved{abi.StatusStorage}))
	f.Add(AppendPark(nil))
	f.Add(AppendCertify(nil, &Certify{ListLen: 100, ChainLen: 200, Revision: 164}))
	f.Add(AppendCertified(nil, Certified{abi.StatusOK, 300, 400}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var again []byte
		if s, err := ParseSetup(b); err == nil {
			again = AppendSetup(nil, &s)
		} else if r, err := ParseReady(b); err == nil {
			again = AppendReady(nil, &r)
		} else if s, err := ParseSave(b); err == nil {
			again = AppendSave(nil, s)
		} else if s, err := ParseSaved(b); err == nil {
			again = AppendSaved(nil, s)
		} else if ParsePark(b) == nil {
			again = AppendPark(nil)
		} else if c, err := ParseCertify(b); err == nil {
			again = AppendCertify(nil, &c)
		} else if c, err := ParseCertified(b); err == nil {
			again = AppendCertified(nil, c)
		} else {
			return
		}
		if !bytes.Equal(again, b) {
			t.Errorf("%x is read, and written as %x", b, again)
		}
	})
}
