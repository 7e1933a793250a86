// SPDX-License-Identifier: Apache-2.0

package pcrmap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"hwvtpm/coproc/abi"
)

// Maker is a TPM that can be made anew.
type Maker interface {
	TPM
	Manufacture() error
	Stored(dst []byte) []byte
}

// SelfTest maps PCRs into a TPM that it makes for that, and looks whether they are
// there, and nothing else has changed. The TPM that t held is gone. Every error is
// ErrRefused.
func SelfTest(t Maker) error {
	err := selfTest(t)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrRefused):
		return fmt.Errorf("self-test of PCR mapping: %w", err)
	}
	return fmt.Errorf("self-test of PCR mapping: %w: %w", ErrRefused, err)
}

func selfTest(t Maker) error {
	if err := t.Manufacture(); err != nil {
		return err
	}
	resp := make([]byte, maxResponse)
	perm := t.Stored(nil)
	defer func() { clear(perm) }()
	for _, cmd := range [][]byte{
		{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x44, 0, 0}, // TPM2_Startup(CLEAR)
		pcrEvent(0), pcrEvent(10), pcrEvent(23),
	} {
		n, _, err := t.Process(0, cmd, resp)
		if err != nil {
			return err
		}
		if n < header || binary.BigEndian.Uint32(resp[6:]) != 0 {
			return refuse("response %x", resp[:n])
		}
	}
	if p := t.Stored(nil); len(p) > 0 {
		clear(perm)
		perm = p
	}
	before, err := read(t, resp)
	if err != nil {
		return err
	}
	m, err := testMap()
	if err != nil {
		return err
	}
	if err := Apply(t, perm, &m); err != nil {
		return err
	}
	after, err := read(t, resp)
	if err != nil {
		return err
	}
	return compare(before, after, &m)
}

// compare holds two readings against what a map should have done in between. It
// knows nothing of states.
func compare(before, after *reading, m *abi.PCRMap) error {
	if after.counter != before.counter+1 || after.used != before.used {
		return refuse("PCR changes went from %d to %d", before.counter, after.counter)
	}
	for i, k := range banks {
		for pcr, got := range after.values[i] {
			want := before.values[i][pcr]
			if pcr < abi.HostPCRs && want != nil {
				want = Wanted(m, k.set, pcr)
			}
			if !bytes.Equal(got, want) {
				return refuse("PCR %d of the bank %v is %x, want %x", pcr, k.set, got, want)
			}
		}
	}
	return nil
}

// testMap has two banks whose values are all different.
func testMap() (m abi.PCRMap, err error) {
	for _, k := range []bank{banks[1], banks[2]} {
		var values [][]byte
		for pcr := range abi.HostPCRs {
			values = append(values, bytes.Repeat([]byte{byte(k.alg<<4) | byte(pcr)}, k.size))
		}
		if err := m.SetBank(k.set, values); err != nil {
			return m, err
		}
	}
	return m, nil
}

// pcrEvent is TPM2_PCR_Event with an empty password and three bytes of data.
func pcrEvent(pcr byte) []byte {
	return []byte{0x80, 0x02, 0, 0, 0, 32, 0, 0, 0x01, 0x3c, 0, 0, 0, pcr,
		0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3}
}
