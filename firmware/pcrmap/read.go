// SPDX-License-Identifier: Apache-2.0

package pcrmap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/bits"
)

// ErrNotStarted: the TPM waits for TPM2_Startup. Nothing was changed.
var ErrNotStarted = errors.New("the TPM was not started")

const (
	header       = 10 // of a command or response
	rcInitialize = 0x100
)

// reading is what a TPM says of its PCRs.
type reading struct {
	counter uint32
	used    [len(banks)]bool // whether the bank is in use
	values  [len(banks)][numPCRs][]byte
}

// read reads all PCRs of all banks in use.
func read(t TPM, resp []byte) (*reading, error) {
	r := &reading{}
	for i, k := range banks {
		for first := 0; first < numPCRs; first += 8 { // a response has 8 at most
			if err := r.octet(t, i, k, first, resp); err != nil {
				return nil, err
			}
		}
	}
	return r, nil
}

// octet reads eight PCRs of a bank (TPM2_PCR_Read, Part 3, 22.4).
//
//	counter u32 | 1 u32 | hash u16 | 3 u8 | bits [3] | digests u32 | size u16, value ...
func (r *reading) octet(t TPM, i int, k bank, first int, resp []byte) error {
	be := binary.BigEndian
	cmd := [header + 10]byte{0x80, 0x01, 0, 0, 0, header + 10, 0, 0, 0x01, 0x7e, 0, 0, 0, 1, byte(k.alg >> 8), byte(k.alg), 3}
	cmd[header+7+first/8] = 0xff
	n, _, err := t.Process(0, cmd[:], resp)
	if err != nil {
		return err
	}
	b := resp[:n]
	if n < header {
		return refuse("response of %d bytes", n)
	}
	if rc := be.Uint32(b[6:]); rc == rcInitialize {
		return ErrNotStarted
	} else if rc != 0 {
		return refuse("TPM2_PCR_Read: response code %#x", rc)
	}
	if n < header+18 || be.Uint32(b[14:]) != 1 || be.Uint16(b[18:]) != k.alg || b[20] != 3 {
		return refuse("TPM2_PCR_Read: response of %d bytes", n)
	}
	r.counter = be.Uint32(b[header:])
	got, count := b[21+first/8], be.Uint32(b[24:])
	if other := int(b[21]) + int(b[22]) + int(b[23]) - int(got); other != 0 || int(count) != bits.OnesCount8(got) {
		return refuse("TPM2_PCR_Read gave other PCRs than asked for")
	}
	return r.digests(i, first, got, b[28:])
}

// digests takes the values that a response ends with, one for each bit set.
func (r *reading) digests(i, first int, got byte, b []byte) error {
	size := banks[i].size
	for pcr := range 8 {
		if got&(1<<pcr) == 0 {
			continue
		}
		if len(b) < 2+size || int(binary.BigEndian.Uint16(b)) != size {
			return refuse("TPM2_PCR_Read: digest of PCR %d", first+pcr)
		}
		r.used[i] = true
		r.values[i][first+pcr] = bytes.Clone(b[2 : 2+size])
		b = b[2+size:]
	}
	if len(b) != 0 {
		return refuse("TPM2_PCR_Read: %d bytes too many", len(b))
	}
	return nil
}

// matches tells whether a TPM in this state would read so.
func (r *reading) matches(s *state) error {
	if r.counter != s.pcrCounter() {
		return refuse("the TPM has counted %d PCR changes, the state has %d", r.counter, s.pcrCounter())
	}
	any := false
	for i, k := range banks {
		any = any || r.used[i]
		for pcr := range numPCRs {
			if v := r.values[i][pcr]; v != nil && !bytes.Equal(v, s.value(pcr, k)) {
				return refuse("PCR %d of the bank %v is %x, the state has %x", pcr, k.set, v, s.value(pcr, k))
			}
		}
	}
	if !any {
		return refuse("the TPM shows no PCRs")
	}
	return nil
}
