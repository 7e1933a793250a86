// SPDX-License-Identifier: Apache-2.0

package hosttpm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/firmware/sealed"
)

var bootPCRs = Selection{tpm2.TPMAlgSHA256, []uint{7, 0, 2}}

func sealNew(t testing.TB, tpm TPM, sel Selection) (*Source, *sealed.Key) {
	t.Helper()
	key := sealed.NewKey()
	s, err := SealKey(tpm, filepath.Join(t.TempDir(), "key"), key, sel)
	if err != nil {
		t.Fatal(err)
	}
	return s, key
}

func TestKeyIsReleasedWhilePCRsAreTheSame(t *testing.T) {
	onBoth(t, func(t *testing.T, tpm TPM, b *bus) {
		extend(t, b, 2)
		s, key := sealNew(t, tpm, bootPCRs)
		extend(t, b, 10) // not in the policy
		for range 5 {    // more than a TPM has room for, if something were left
			got, err := OpenKey(tpm, s.file.Path()).Key()
			must(t, err)
			if *got != *key {
				t.Fatal("another key")
			}
		}
		if bytes.Contains(b.heard, key.Bytes()) {
			t.Error("the key crossed the bus in clear")
		}
		extend(t, b, 7)
		_, err := s.Key()
		if !errors.Is(err, ErrPCRs) {
			t.Fatalf("after PCR 7 changed: %v", err)
		}
		if text := err.Error(); !strings.Contains(text, "PCR 7 is ") || strings.Contains(text, "PCR 0 is ") {
			t.Errorf("does not say what changed: %v", err)
		}
		if _, err := SealKey(tpm, s.file.Path(), key, bootPCRs); !errors.Is(err, fs.ErrExist) {
			t.Errorf("sealed over a key: %v", err)
		}
		// From its backup, the key is sealed for the new state.
		s, err = SealKey(tpm, filepath.Join(t.TempDir(), "new"), key, bootPCRs)
		must(t, err)
		got, err := s.Key()
		if err != nil || *got != *key {
			t.Errorf("sealed anew: %v", err)
		}
	})
}

func TestKeyOfAnotherTPM(t *testing.T) {
	tpm, _ := newTPM(t)
	s, _ := sealNew(t, tpm, bootPCRs)
	other, _ := newTPM(t)
	if _, err := OpenKey(other, s.file.Path()).Key(); !errors.Is(err, ErrOtherTPM) {
		t.Errorf("%v", err)
	}
}

func TestDamagedKeyFile(t *testing.T) {
	tpm, b := newTPM(t)
	s, _ := sealNew(t, tpm, bootPCRs)
	good, err := os.ReadFile(s.file.Path())
	must(t, err)
	k, err := parseSealedKey(good)
	must(t, err)
	for name, b := range map[string][]byte{
		"empty": nil, "cut": good[:len(good)-1], "bit": flipped(good, 100), "longer": append(bytes.Clone(good), 0),
	} {
		must(t, os.WriteFile(s.file.Path(), b, 0o600))
		if _, err := s.Key(); !errors.Is(err, sealed.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, os.WriteFile(s.file.Path(), flipped(good, 8), 0o600))
	if _, err := s.Key(); !errors.Is(err, sealed.ErrVersion) {
		t.Errorf("version: %v", err)
	}
	must(t, os.Remove(s.file.Path()))
	if _, err := s.Key(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	k.private = flipped(k.private, 40)
	if _, err := tpm.unseal(k); !errors.Is(err, sealed.ErrDamaged) {
		t.Errorf("private part: %v", err)
	}
	if n := loaded(t, b); n != 0 {
		t.Errorf("%d handles left", n)
	}
}

func flipped(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}

func TestSelectionRefuses(t *testing.T) {
	tpm, _ := newTPM(t)
	for _, sel := range []Selection{
		{}, {Bank: tpm2.TPMAlgSHA256}, {tpm2.TPMAlgSHA256, []uint{24}}, {tpm2.TPMAlgSHA1, []uint{0}},
	} {
		if _, err := SealKey(tpm, filepath.Join(t.TempDir(), "key"), sealed.NewKey(), sel); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%v: %v", sel, err)
		}
	}
	if got := bootPCRs.String(); got != "sha256:7,0,2" {
		t.Errorf("String = %q", got)
	}
	sealNew(t, tpm, Selection{tpm2.TPMAlgSHA384, []uint{23}})
}

// However the bus breaks, no object and no session stays in the TPM.
func TestNothingStaysInTheTPM(t *testing.T) {
	tpm, b := newTPM(t)
	s, _ := sealNew(t, tpm, bootPCRs)
	for n := 1; ; n++ {
		b.sent, b.fail = 0, n
		_, err := s.Key()
		b.fail = 0
		if err == nil {
			if n < 5 {
				t.Errorf("unsealing took %d commands", n-1)
			}
			return
		}
		if !errors.Is(err, errBus) {
			t.Errorf("command %d: %v", n, err)
		}
		if left := loaded(t, b); left != 0 {
			t.Errorf("command %d: %d handles left", n, left)
		}
	}
}

func TestNothingPrintsASecret(t *testing.T) {
	tpm, _ := newTPM(t)
	source, _ := sealNew(t, tpm, bootPCRs)
	counter, err := DefineCounter(tpm, DefaultIndex, testAuth())
	must(t, err)
	tpm.OwnerAuth = bytes.Repeat([]byte{0xc7}, 8)
	for _, v := range []any{tpm, &tpm, OpenKey(tpm, source.file.Path()), counter} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
			text := strings.ToLower(fmt.Sprintf(verb, v))
			for _, form := range []string{"c7c7", "199 199", "0xc7, 0xc7", "\xc7\xc7"} {
				if strings.Contains(text, form) {
					t.Errorf("%s of %T tells a secret: %s", verb, v, text)
				}
			}
		}
	}
}

// A file as it is written, so that it is read for ever.
func TestGoldenSealedKey(t *testing.T) {
	k := sealedKey{
		selection: Selection{tpm2.TPMAlgSHA256, []uint{0, 7}},
		values:    [][]byte{bytes.Repeat([]byte{0x10}, 32), bytes.Repeat([]byte{0x17}, 32)},
		primary:   [nameSize]byte{0, 0x0b, 33: 0x99},
		public:    []byte("public"), private: []byte("private"),
	}
	got, err := k.append(nil)
	must(t, err)
	text, err := os.ReadFile("testdata/sealedkey.hex")
	must(t, err)
	if want := strings.Join(strings.Fields(string(text)), ""); fmt.Sprintf("%x", got) != want {
		t.Errorf("got  %x\nwant %s", got, want)
	}
}

func FuzzSealedKey(f *testing.F) {
	k := sealedKey{selection: Selection{tpm2.TPMAlgSHA256, []uint{0, 7}}, values: [][]byte{make([]byte, 32), make([]byte, 32)}, public: []byte{1, 2}, private: []byte{3}}
	b, err := k.append(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(fileMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := parseSealedKey(b)
		if err != nil {
			return
		}
		again, err := k.append(nil)
		if err != nil || len(again) != len(b) || binary.LittleEndian.Uint32(again[16:]) != binary.LittleEndian.Uint32(b[16:]) {
			t.Errorf("%x becomes %x, %v", b, again, err)
		}
	})
}

func BenchmarkUnseal(b *testing.B) {
	tpm, _ := newTPM(b)
	s, _ := sealNew(b, tpm, bootPCRs)
	for b.Loop() {
		if _, err := s.Key(); err != nil {
			b.Fatal(err)
		}
	}
}
