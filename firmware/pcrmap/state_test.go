// SPDX-License-Identifier: Apache-2.0

package pcrmap

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"hwvtpm/coproc/abi"
)

// resum completes a state that was changed.
func resum(b []byte) []byte {
	tail := len(b) - sha1.Size
	sum := sha1.Sum(b[:tail])
	copy(b[tail:], sum[:])
	return b
}

// with puts bytes into a state where nothing else is looked at.
func with(vol, planted []byte) []byte {
	const at = 0x200
	return resum(slices.Concat(vol[:at], planted, vol[at:]))
}

func TestFormIsStrict(t *testing.T) {
	vol := started(t).volatile()
	s, err := parse(vol)
	if err != nil {
		t.Fatal(err)
	}
	change := func(off int, v byte) []byte {
		b := bytes.Clone(vol)
		b[off] ^= v
		return resum(b)
	}
	block := bytes.Clone(vol[s.records-blockHeader : s.records+numPCRs*recordSize])
	counter := bytes.Clone(vol[s.counter-400 : s.counter+4])
	last := s.records + (numPCRs-1)*recordSize
	for name, b := range map[string][]byte{
		"nothing":                  nil,
		"a checksum":               resum(make([]byte, sha1.Size)),
		"later version":            change(1, 1),
		"later readers only":       change(7, 3),
		"first magic":              change(3, 1),
		"last magic":               change(len(vol)-sha1.Size-1, 1),
		"checksum":                 append(bytes.Clone(vol[:len(vol)-1]), vol[len(vol)-1]^1),
		"cut":                      vol[:len(vol)-1],
		"block absent":             change(s.records-5, 1),
		"block length":             change(s.records-3, 1),
		"number of PCRs":           change(s.records-1, 1),
		"version of a record":      change(last+1, 1),
		"magic of a record":        change(last+4, 1),
		"readers of a record":      change(last+7, 2),
		"hash of a bank":           change(last+9, 1),
		"size of a bank":           change(last+11, 1),
		"a fifth bank":             change(last+recordSize-4, 2),
		"something behind a PCR":   change(last+recordSize-1, 1),
		"no end of a PCR":          change(last+recordSize-3, 1),
		"a second block":           with(vol, block),
		"a second counter":         with(vol, counter),
		"too large":                resum(append(bytes.Clone(vol), make([]byte, maxState)...)),
		"a counter not understood": change(s.counter-4-2-8-1, 0x55),
	} {
		if _, err := parse(b); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v, want ErrRefused", name, err)
		}
	}
	block[len(block)-1] = 1
	if got, err := parse(with(vol, block)); err != nil || got.records != s.records+len(block) {
		t.Errorf("a block that is almost one: %v", err)
	}
}

// TestRewrite: what a map changes is the eight PCRs, the counter and the checksum.
func TestRewrite(t *testing.T) {
	r := started(t)
	r.CreateSRK()
	vol := r.volatile()
	s, err := parse(vol)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		var m abi.PCRMap
		for _, k := range banks {
			if !rapid.Bool().Draw(t, "bank") {
				continue
			}
			values := make([][]byte, abi.HostPCRs)
			for i := range values {
				values[i] = rapid.SliceOfN(rapid.Byte(), k.size, k.size).Draw(t, "value")
			}
			if err := m.SetBank(k.set, values); err != nil {
				t.Fatal(err)
			}
		}
		n, err := parse(s.rewrite(&m).blob)
		if err != nil || n.records != s.records || n.counter != s.counter {
			t.Fatalf("rewritten state: %v", err)
		}
		back := bytes.Clone(n.blob)
		b := &state{blob: back, records: n.records, counter: n.counter}
		for _, k := range banks {
			for pcr := range abi.HostPCRs {
				if got := n.value(pcr, k); !bytes.Equal(got, Wanted(&m, k.set, pcr)) {
					t.Fatalf("PCR %d of %v = %x", pcr, k.set, got)
				}
				copy(b.value(pcr, k), s.value(pcr, k))
			}
		}
		binary.BigEndian.PutUint32(back[b.counter:], n.pcrCounter()-1)
		if !bytes.Equal(resum(back), vol) {
			t.Fatal("something else has changed")
		}
	})
}

// TestGuestsLookAlikes: a guest that puts pieces of a state wherever it can does
// not get in the way.
func TestGuestsLookAlikes(t *testing.T) {
	r := started(t)
	s, err := parse(r.volatile())
	if err != nil {
		t.Fatal(err)
	}
	record := s.blob[s.records-blockHeader : s.records+recordSize]
	srk := r.CreateSRK()
	r.SealWithPassword(srk, string(record[:64]), string(record[:32]))
	r.SealWithPassword(srk, string(s.blob[s.counter-120:s.counter]), "")
	for ix, data := range [][]byte{record, s.blob[s.counter-180 : s.counter+4]} {
		r.defineOrderly(0x01800010+uint32(ix), data)
	}
	m := mapped(t)
	r.apply(m)
	if got := r.PCR(0); !bytes.Equal(got[:], m.Value(abi.BankSHA256, 0)) {
		t.Errorf("PCR 0 = %x", got)
	}
}

func FuzzParse(f *testing.F) {
	r := started(f)
	vol := r.volatile()
	f.Add(vol, 0, []byte{})
	f.Add(vol, 4000, []byte{1, 2, 3})
	f.Add(vol[:40], 20, []byte{0xff})
	f.Add([]byte{}, 0, []byte{})
	var m abi.PCRMap
	f.Fuzz(func(t *testing.T, b []byte, at int, put []byte) {
		b = bytes.Clone(b)
		if at >= 0 && at < len(b) {
			copy(b[at:], put)
		}
		if len(b) >= sha1.Size {
			resum(b)
		}
		s, err := parse(b)
		if err != nil {
			if !errors.Is(err, ErrRefused) {
				t.Fatalf("parse: %v", err)
			}
			return
		}
		n, err := parse(s.rewrite(&m).blob)
		if err == nil && (n.records != s.records || n.counter != s.counter) {
			t.Fatal("a map has moved things")
		}
	})
}
