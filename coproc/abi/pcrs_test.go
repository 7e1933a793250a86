// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"bytes"
	"errors"
	"slices"
	"testing"
)

// pcrValues gives eight digests of n bytes, the first one of zeros.
func pcrValues(n int) [][]byte {
	var all [][]byte
	for i := range HostPCRs {
		all = append(all, bytes.Repeat([]byte{byte(i)}, n))
	}
	return all
}

func pcrMapOf(banks ...Banks) PCRMap {
	var m PCRMap
	for _, b := range banks {
		if err := m.SetBank(b, pcrValues(len(UnmappedPCR(b)))); err != nil {
			panic(err)
		}
	}
	return m
}

var pcrMapCodecs = []codec{
	codecOf("no PCRs", unhex(`00000000 00000000`), PCRMap{}, ParsePCRMap, AppendPCRMap),
	codecOf("PCRs of two banks",
		slices.Concat(unhex(`06000000 00000000`), slices.Concat(pcrValues(32)...), slices.Concat(pcrValues(48)...)),
		pcrMapOf(BankSHA384, BankSHA256), ParsePCRMap, AppendPCRMap),
}

func TestPCRMap(t *testing.T) {
	m := pcrMapOf(BankSHA1, BankSHA512)
	if m.Banks() != BankSHA1|BankSHA512 || len(AppendPCRMap(nil, &m)) != 8+8*(20+64) {
		t.Errorf("a map of two banks has %v", m.Banks())
	}
	if got := m.Value(BankSHA512, 7); !bytes.Equal(got, bytes.Repeat([]byte{7}, 64)) {
		t.Errorf("PCR 7 = %x", got)
	}
	for _, got := range [][]byte{m.Value(BankSHA256, 0), m.Value(BankSHA1, 8), m.Value(BankSHA1, -1), m.Value(BankSHA1|BankSHA512, 0)} {
		if got != nil {
			t.Errorf("a value that the map does not have: %x", got)
		}
	}
	if m == pcrMapOf(BankSHA1) || m != pcrMapOf(BankSHA512, BankSHA1) {
		t.Error("maps do not compare by what is in them")
	}
}

func TestMalformedPCRMap(t *testing.T) {
	var m PCRMap
	for name, err := range map[string]error{
		"seven values":   m.SetBank(BankSHA256, pcrValues(32)[:7]),
		"a short value":  m.SetBank(BankSHA256, append(pcrValues(32)[:7], make([]byte, 31))),
		"two banks":      m.SetBank(BankSHA1|BankSHA256, pcrValues(20)),
		"an odd bank":    m.SetBank(1<<4, pcrValues(32)),
		"bank on wire":   parseErr(ParsePCRMap)(unhex(`10000000 00000000`)),
		"reserved":       parseErr(ParsePCRMap)(unhex(`00000000 00000001`)),
		"a bank too few": parseErr(ParsePCRMap)(AppendPCRMap(nil, new(pcrMapOf(BankSHA1)))[:8]),
		"a bank's excess": parseErr(ParsePCRMap)(
			append(AppendPCRMap(nil, new(pcrMapOf(BankSHA1))), make([]byte, 32)...)),
	} {
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, want ErrMalformed", name, err)
		}
	}
	if m != (PCRMap{}) {
		t.Error("a bank that was refused left something")
	}
}

func TestUnmappedPCR(t *testing.T) {
	for bank, n := range map[Banks]int{BankSHA1: 20, BankSHA256: 32, BankSHA384: 48, BankSHA512: 64, 0: 0, 3: 0} {
		if got := UnmappedPCR(bank); len(got) != n {
			t.Errorf("UnmappedPCR(%v) = %x, want %d bytes", bank, got, n)
		}
	}
	// Verifiers know it.
	want := unhex(`6d21d3ddfa1ee70740e981c773d991d4e6f1b4f336973a5cf537432b616f6a47`)
	if got := UnmappedPCR(BankSHA256); !bytes.Equal(got, want) {
		t.Errorf("UnmappedPCR(sha256) = %x, want %x", got, want)
	}
}
