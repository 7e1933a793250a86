// SPDX-License-Identifier: Apache-2.0

package pcrmap

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"

	"hwvtpm/coproc/abi"
)

// ErrRefused: the TPM, or its state, is not what this package knows. Nothing was
// changed.
var ErrRefused = errors.New("state of the TPM is not understood")

// What is known of the volatile state (libtpms 0.9 and 0.10, src/tpm2/NVMarshal.c
// and Volatile.c). All is big-endian.
//
//	state    u16 4 | u32 stateMagic | u16 1 | ... | u32 stateMagic | SHA-1 of all before
//	PCRs     u8 1 | u16 length of the rest | u16 24 | 24 records
//	record   u16 2 | u32 recordMagic | u16 1 | for each bank: u16 hash, u16 size, value |
//	         u16 TPM_ALG_NULL | u8 1 | u16 0
//	resets   u16 4 | u32 resetMagic | u16 4 | 2B | 2B | u32 | u64 | u16 64 | 64 u16 |
//	         u16 | u64 | 2B | u32 | u32 counter of PCR changes | ...
//
// 2B is a u16 size and as many bytes. All four banks are there, also those that
// are not in use.
const (
	stateMagic  = 0x45637889
	recordMagic = 0xe95f0387
	resetMagic  = 0x01102332

	stateVersion, stateMinVersion = 4, 1
	recordHeader                  = 2 + 4 + 2
	recordEnd                     = 2 + 1 + 2
	recordSize                    = recordHeader + 4*4 + 20 + 32 + 48 + 64 + recordEnd
	blockHeader                   = 1 + 2 + 2

	numPCRs  = 24
	algNull  = 0x10
	maxState = 1 << 16
	max2B    = 64 // the longest that is in a state there: a SHA-512 digest
	contexts = 64 // MAX_ACTIVE_SESSIONS
)

// bank is one PCR bank, in the order of a record.
type bank struct {
	set  abi.Banks
	alg  uint16 // TPM_ALG_ID
	size int
}

var banks = [...]bank{
	{abi.BankSHA1, 0x4, 20}, {abi.BankSHA256, 0xb, 32}, {abi.BankSHA384, 0xc, 48}, {abi.BankSHA512, 0xd, 64},
}

// state says where in a volatile state is what changes.
type state struct {
	blob    []byte // secret
	records int    // offset of the record of PCR 0
	counter int    // offset of the counter
}

func refuse(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, ErrRefused)...)
}

// parse finds its way in a volatile state, which the result aliases.
func parse(blob []byte) (*state, error) {
	be := binary.BigEndian
	tail := len(blob) - sha1.Size
	if len(blob) > maxState || tail < 8+4 {
		return nil, refuse("volatile state of %d bytes", len(blob))
	}
	if v, least := be.Uint16(blob), be.Uint16(blob[6:]); v != stateVersion || least != stateMinVersion {
		return nil, refuse("volatile state of version %d, for readers from %d on", v, least)
	}
	if be.Uint32(blob[2:]) != stateMagic || be.Uint32(blob[tail-4:]) != stateMagic {
		return nil, refuse("volatile state without its magic numbers")
	}
	if sum := sha1.Sum(blob[:tail]); !bytes.Equal(sum[:], blob[tail:]) {
		return nil, refuse("volatile state with a wrong checksum")
	}
	s := &state{blob: blob}
	var err error
	if s.records, err = only(blob[:tail], recordMagic, "PCRs", recordsAt); err != nil {
		return nil, err
	}
	s.counter, err = only(blob[:tail], resetMagic, "counter of PCR changes", counterAt)
	return s, err
}

// only looks at every place with a magic number, and gives what the one finds
// that fits.
func only(b []byte, magic uint32, what string, at func(b []byte, pos int) (int, bool)) (int, error) {
	var word [4]byte
	binary.BigEndian.PutUint32(word[:], magic)
	found, times := 0, 0
	for pos := 0; ; pos++ {
		i := bytes.Index(b[pos:], word[:])
		if i < 0 {
			break
		}
		pos += i
		if off, ok := at(b, pos); ok {
			found, times = off, times+1
		}
	}
	if times != 1 {
		return 0, refuse("%d places in the volatile state could be the %s", times, what)
	}
	return found, nil
}

// recordsAt tells whether the magic number at pos is that of the first of 24
// whole records, and gives the offset of that record.
func recordsAt(b []byte, pos int) (int, bool) {
	first := pos - 2
	start := first - blockHeader
	if start < 0 || len(b)-first < numPCRs*recordSize {
		return 0, false
	}
	be := binary.BigEndian
	if b[start] != 1 || be.Uint16(b[start+1:]) != 2+numPCRs*recordSize || be.Uint16(b[start+3:]) != numPCRs {
		return 0, false
	}
	for pcr := range numPCRs {
		if !isRecord(b[first+pcr*recordSize:][:recordSize]) {
			return 0, false
		}
	}
	return first, true
}

func isRecord(b []byte) bool {
	be := binary.BigEndian
	if be.Uint16(b) != 2 || be.Uint32(b[2:]) != recordMagic || be.Uint16(b[6:]) != 1 {
		return false
	}
	b = b[recordHeader:]
	for _, k := range banks {
		if be.Uint16(b) != k.alg || int(be.Uint16(b[2:])) != k.size {
			return false
		}
		b = b[4+k.size:]
	}
	return be.Uint16(b) == algNull && b[2] == 1 && be.Uint16(b[3:]) == 0
}

// counterAt tells whether the magic number at pos is that of the data which a TPM
// Reset clears, and gives the offset of the counter in it.
func counterAt(b []byte, pos int) (int, bool) {
	r := walk{b: b, at: pos - 2}
	if pos < 2 || r.u16() != 4 || r.skip(4) || r.u16() != 4 {
		return 0, false
	}
	if r.blob() {
		return 0, false
	}
	if r.blob() || r.skip(4+8) || r.u16() != contexts || r.skip(2*contexts) {
		return 0, false
	}
	if mask := r.u16(); mask != 0xffff && mask != 0x00ff {
		return 0, false
	}
	if r.skip(8) || r.blob() || r.skip(4) {
		return 0, false
	}
	off := r.at
	return off, !r.skip(4)
}

// walk reads on in a state, with bounds. skip and blob tell of a failure.
type walk struct {
	b  []byte
	at int
}

func (r *walk) u16() int {
	if len(r.b)-r.at < 2 {
		return -1
	}
	r.at += 2
	return int(binary.BigEndian.Uint16(r.b[r.at-2:]))
}

func (r *walk) skip(n int) bool {
	if len(r.b)-r.at < n {
		return true
	}
	r.at += n
	return false
}

func (r *walk) blob() bool {
	n := r.u16()
	return n < 0 || n > max2B || r.skip(n)
}

// value gives a PCR's value in a bank, in place.
func (s *state) value(pcr int, k bank) []byte {
	off := s.records + pcr*recordSize + recordHeader
	for _, other := range banks {
		off += 4
		if other == k {
			break
		}
		off += other.size
	}
	return s.blob[off : off+k.size]
}

func (s *state) pcrCounter() uint32 { return binary.BigEndian.Uint32(s.blob[s.counter:]) }

// rewrite gives a copy of the state with a map in force.
func (s *state) rewrite(m *abi.PCRMap) *state {
	n := &state{blob: bytes.Clone(s.blob), records: s.records, counter: s.counter}
	for _, k := range banks {
		for pcr := range abi.HostPCRs {
			copy(n.value(pcr, k), Wanted(m, k.set, pcr))
		}
	}
	binary.BigEndian.PutUint32(n.blob[n.counter:], s.pcrCounter()+1)
	tail := len(n.blob) - sha1.Size
	sum := sha1.Sum(n.blob[:tail])
	copy(n.blob[tail:], sum[:])
	return n
}

// Wanted is the value of a PCR under a map.
func Wanted(m *abi.PCRMap, bank abi.Banks, pcr int) []byte {
	if v := m.Value(bank, pcr); v != nil {
		return v
	}
	return abi.UnmappedPCR(bank)
}
