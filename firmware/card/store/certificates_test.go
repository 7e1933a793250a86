// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"reflect"
	"strings"
	"testing"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/sealed"
)

var sampleCertificates = []abi.EKCertificate{
	{Handle: 0x8101000a, Index: abi.IndexP256EK, Public: []byte{0xaa, 0xbb}, DER: []byte{0x30, 0}},
	{Handle: 0x81010001, Public: []byte{0xcc}, DER: []byte{}},
}

func TestCertificatesGolden(t *testing.T) {
	want := strings.Join([]string{
		"68777674706d2d63", "01000000", "00000000",
		"0a000181", "0a00c001", "02000000", "02000000", "aabb", "3000",
		"01000181", "00000000", "01000000", "00000000", "cc",
	}, "")
	b := appendCertificates(nil, sampleCertificates)
	if hex.EncodeToString(b) != want {
		t.Errorf("encoded %x, want %s", b, want)
	}
	if got, err := parseCertificates(b); err != nil || !reflect.DeepEqual(got, sampleCertificates) {
		t.Errorf("parsed %+v, %v", got, err)
	}
	newer := bytes.Clone(b)
	newer[8] = 2
	if _, err := parseCertificates(newer); !errors.Is(err, sealed.ErrVersion) {
		t.Errorf("of a newer version: %v", err)
	}
	reserved := bytes.Clone(b)
	reserved[12] = 1
	for name, b := range map[string][]byte{"cut": b[:len(b)-1], "head": b[:15], "longer": append(bytes.Clone(b), 0), "reserved": reserved} {
		if _, err := parseCertificates(b); !errors.Is(err, sealed.ErrDamaged) {
			t.Errorf("%s: %v, want ErrDamaged", name, err)
		}
	}
}

func FuzzCertificates(f *testing.F) {
	f.Add(appendCertificates(nil, sampleCertificates))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := parseCertificates(b)
		if err == nil && !bytes.Equal(appendCertificates(nil, list), b) {
			t.Errorf("%x parsed is %+v", b, list)
		}
	})
}

func TestCertificatesAreKept(t *testing.T) {
	cfg := newConfig(t)
	s := openStore(t, cfg)
	r := record(1)
	_, blob := seal(t, s, r.ID, 1, "first")
	r, err := s.Create(r, blob, sampleCertificates, MaxSlots)
	must(t, err)
	b := create(t, s, 2)
	if _, err := s.Certificates(b.ID); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a slot without: %v", err)
	}
	if _, err := s.CardCertificates(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a card without: %v", err)
	}
	must(t, s.SaveCertificates(b.ID, sampleCertificates[1:]))
	must(t, s.SaveCardCertificates([]byte("chain")))
	must(t, s.Close())
	s = openStore(t, cfg)
	for id, want := range map[sealed.SlotID][]abi.EKCertificate{r.ID: sampleCertificates, b.ID: sampleCertificates[1:]} {
		if got, err := s.Certificates(id); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("Certificates = %+v, %v, want %+v", got, err, want)
		}
	}
	if got, err := s.CardCertificates(); err != nil || string(got) != "chain" {
		t.Errorf("CardCertificates = %q, %v", got, err)
	}
	must(t, s.Remove(r.ID))
	must(t, s.RemoveFiles(r.ID))
	if _, err := os.Stat(s.slotPath(r.ID, "")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("files of a removed slot are left: %v", err)
	}
}

// TestCertificatesNotWritten: without them there is no slot.
func TestCertificatesNotWritten(t *testing.T) {
	s := openStore(t, newConfig(t))
	breakFile(s, certificatesName, errFault)
	r := record(1)
	_, blob := seal(t, s, r.ID, 1, "first")
	if _, err := s.Create(r, blob, sampleCertificates, MaxSlots); !errors.Is(err, errFault) || len(s.Records()) != 0 {
		t.Errorf("Create: %v, %d slots", err, len(s.Records()))
	}
	mend(s)
	if _, err := s.Create(r, blob, sampleCertificates, MaxSlots); err != nil {
		t.Errorf("Create again: %v", err)
	}
}
