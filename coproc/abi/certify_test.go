// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"testing"
)

var goldenEKCertificate = unhex(`
	0a000181 0a00c001 03000000 02000000
	aabbcc   3000`)

var certifyCodecs = []codec{
	codecOf("EK certificate", goldenEKCertificate,
		EKCertificate{Handle: 0x8101000a, Index: IndexP256EK, Public: []byte{0xaa, 0xbb, 0xcc}, DER: []byte{0x30, 0}},
		ParseEKCertificate, AppendEKCertificate),
}

func TestEKCertificateMalformed(t *testing.T) {
	for name, c := range map[string]EKCertificate{
		"long public area":     {Handle: 0x81010001, Public: make([]byte, MaxEKPublic+1)},
		"long certificate":     {Handle: 0x81010001, DER: make([]byte, MaxCertificate+1)},
		"index of another key": {Handle: 0x81010001, Index: IndexP384EK, DER: []byte{0x30, 0}},
		"index of no key":      {Handle: 0x81000001, Index: IndexRSAEK, DER: []byte{0x30, 0}},
		"nothing in the index": {Handle: 0x81010001, Index: IndexRSAEK},
	} {
		if _, err := ParseEKCertificate(AppendEKCertificate(nil, &c)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, want ErrMalformed", name, err)
		}
	}
	wraps := unhex(`0a000181 00000000 ffffffff 01000000`)
	if _, err := ParseEKCertificate(wraps); !errors.Is(err, ErrMalformed) {
		t.Errorf("lengths that wrap: %v, want ErrMalformed", err)
	}
	longest := EKCertificate{Handle: 1, Public: make([]byte, MaxEKPublic), DER: make([]byte, MaxCertificate)}
	if n := len(AppendEKCertificate(nil, &longest)); n > MaxPayload {
		t.Errorf("the longest answer has %d bytes, more than a payload takes", n)
	}
}

// TestCertificateIndex: each endorsement key that a slot can have has a place.
func TestCertificateIndex(t *testing.T) {
	for handle, want := range map[uint32]uint32{
		0x81010001: 0x01c00002, 0x8101000a: 0x01c0000a, 0x81010016: 0x01c00016, 0x81000001: 0, 0: 0,
	} {
		if got := CertificateIndex(handle); got != want {
			t.Errorf("CertificateIndex(%#x) = %#x, want %#x", handle, got, want)
		}
	}
}

func TestEKHandles(t *testing.T) {
	for keys, want := range map[Keys][]uint32{
		0: nil, KeySRK: nil, DefaultKeys: {0x81010001, 0x8101000a, 0x81010016}, KeyP384EK | KeySRK: {0x81010016},
	} {
		if got := keys.EKHandles(); !slices.Equal(got, want) {
			t.Errorf("EKHandles of %v = %x, want %x", keys, got, want)
		}
	}
}

func TestHandle(t *testing.T) {
	golden := unhex(`01000181`)
	if b := AppendHandle(nil, 0x81010001); !bytes.Equal(b, golden) {
		t.Errorf("encoded %x, want %x", b, golden)
	}
	if h, err := ParseHandle(golden); h != 0x81010001 || err != nil {
		t.Errorf("parsed %#x, %v", h, err)
	}
	for _, b := range [][]byte{nil, golden[:3], append(bytes.Clone(golden), 0)} {
		if h, err := ParseHandle(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("ParseHandle(%x) = %#x, %v, want ErrMalformed", b, h, err)
		}
	}
}

func TestEKCertificateList(t *testing.T) {
	one := EKCertificate{Handle: 0x8101000a, Index: IndexP256EK, Public: []byte{0xaa, 0xbb, 0xcc}, DER: []byte{0x30, 0}}
	two := EKCertificate{Handle: 0x81010001, Public: []byte{1}, DER: []byte{}}
	b := AppendEKCertificates(nil, []EKCertificate{one, two})
	if got, err := ParseEKCertificates(b); err != nil || !reflect.DeepEqual(got, []EKCertificate{one, two}) {
		t.Errorf("ParseEKCertificates = %+v, %v", got, err)
	}
	if got, err := ParseEKCertificates(nil); err != nil || len(got) != 0 {
		t.Errorf("ParseEKCertificates of nothing = %+v, %v", got, err)
	}
	many := make([]EKCertificate, MaxEKs+1)
	for i := range many {
		many[i].Handle = uint32(i)
	}
	for name, b := range map[string][]byte{
		"cut":      b[:len(b)-1],
		"twice":    AppendEKCertificates(nil, []EKCertificate{one, one}),
		"too many": AppendEKCertificates(nil, many),
	} {
		if got, err := ParseEKCertificates(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v, want ErrMalformed", name, got, err)
		}
	}
}

func FuzzEKCertificate(f *testing.F) {
	f.Add(goldenEKCertificate)
	f.Add(bytes.Join([][]byte{goldenEKCertificate, unhex(`01000181 00000000 00000000 00000000`)}, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseEKCertificate(b)
		if err == nil && !bytes.Equal(AppendEKCertificate(nil, &c), b) {
			t.Errorf("%x parsed is %+v", b, c)
		}
		list, err := ParseEKCertificates(b)
		if err == nil && !bytes.Equal(AppendEKCertificates(nil, list), b) {
			t.Errorf("%x parsed is %+v", b, list)
		}
	})
}
