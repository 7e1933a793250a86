// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
)

// OpMapPCRs gives the TPM the host's PCR 0-7 for the run that it is powered on
// for. Payload PCRMap -> no payload, or text if the status is not OK.
//
// It comes after OpPowerOn, or OpStateLoad, and before the guest's first
// command; StatusOrder says that it is too late. The same values may come again at
// any time. The map lasts as long as the run, through resets and other workers.
// See firmware/pcrmap for what it does.
const OpMapPCRs Opcode = 0x10

// HostPCRs is how many PCRs of the host can be mapped: 0-7, which the TCG PC
// Client Platform Firmware Profile gives to the platform's firmware.
const HostPCRs = 8

const (
	maxDigest    = 64
	pcrMapHeader = 8
)

// MaxPCRMap is the size of the largest PCRMap in wire form, in bytes.
const MaxPCRMap = pcrMapHeader + HostPCRs*(20+32+48+64)

// bankSizes are the sizes of a digest of each bank, in bytes, the lowest bit first.
var bankSizes = [...]int{20, 32, 48, 64}

// unmappedText is what a PCR is a digest of in a bank that the host did not give.
const unmappedText = "hwvtpm: the host gave no PCR values for this bank"

// UnmappedPCR is the value of PCR 0-7, while a map is in force, in a bank that the
// map does not have: the bank's digest of a text that says so. Zeros would be the
// start of values that somebody could extend to any log; nothing leads here.
func UnmappedPCR(bank Banks) []byte {
	text := []byte(unmappedText)
	switch bank {
	case BankSHA1:
		d := sha1.Sum(text)
		return d[:]
	case BankSHA256:
		d := sha256.Sum256(text)
		return d[:]
	case BankSHA384:
		d := sha512.Sum384(text)
		return d[:]
	case BankSHA512:
		d := sha512.Sum512(text)
		return d[:]
	}
	return nil
}

// PCRMap has values of PCR 0-7 in some banks. The zero value has none, and means
// that nothing is mapped. Maps compare with ==.
//
//	 0                4                8
//	+----------------+----------------+
//	| banks          | reserved       |
//	+----------------+----------------+
//	| PCR 0, 1, ... 7 of the first bank, then of the next ...  | 8
//
// Integers are little-endian. A bank's values are there if its bit is set.
type PCRMap struct {
	banks  Banks
	values [len(bankSizes)][HostPCRs][maxDigest]byte
}

// Banks tells which banks have values.
func (m *PCRMap) Banks() Banks { return m.banks }

func (b Banks) index() int {
	for i := range bankSizes {
		if b == 1<<i {
			return i
		}
	}
	return -1
}

// Value gives a PCR's value in one bank, or nil if the bank has none.
func (m *PCRMap) Value(bank Banks, pcr int) []byte {
	i := bank.index()
	if i < 0 || m.banks&bank == 0 || pcr < 0 || pcr >= HostPCRs {
		return nil
	}
	return m.values[i][pcr][:bankSizes[i]]
}

// SetBank gives one bank values, of PCR 0 to 7 in order.
func (m *PCRMap) SetBank(bank Banks, values [][]byte) error {
	i := bank.index()
	if i < 0 || len(values) != HostPCRs {
		return fmt.Errorf("%d values for PCR bank %v: %w", len(values), bank, ErrMalformed)
	}
	for pcr, v := range values {
		if len(v) != bankSizes[i] {
			return fmt.Errorf("PCR %d of bank %v with %d bytes: %w", pcr, bank, len(v), ErrMalformed)
		}
	}
	for pcr, v := range values {
		copy(m.values[i][pcr][:], v)
	}
	m.banks |= bank
	return nil
}

// AppendPCRMap appends m in wire form to dst.
func AppendPCRMap(dst []byte, m *PCRMap) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(m.banks))
	dst = append(dst, 0, 0, 0, 0)
	for i, n := range bankSizes {
		if m.banks&(1<<i) == 0 {
			continue
		}
		for pcr := range HostPCRs {
			dst = append(dst, m.values[i][pcr][:n]...)
		}
	}
	return dst
}

// ParsePCRMap reads a PCRMap.
func ParsePCRMap(b []byte) (PCRMap, error) {
	if len(b) < pcrMapHeader || len(b) > MaxPCRMap || orBytes(b[4:pcrMapHeader]) != 0 {
		return PCRMap{}, fmt.Errorf("map of PCRs of %d bytes: %w", len(b), ErrMalformed)
	}
	m := PCRMap{banks: Banks(binary.LittleEndian.Uint32(b))}
	if m.banks&^knownBanks != 0 {
		return PCRMap{}, fmt.Errorf("map of PCRs of banks %#x: %w", uint32(m.banks), ErrMalformed)
	}
	rest := b[pcrMapHeader:]
	for i, n := range bankSizes {
		if m.banks&(1<<i) == 0 {
			continue
		}
		if len(rest) < HostPCRs*n {
			return PCRMap{}, fmt.Errorf("map of PCRs ends inside a bank: %w", ErrMalformed)
		}
		for pcr := range HostPCRs {
			copy(m.values[i][pcr][:], rest[:n])
			rest = rest[n:]
		}
	}
	if len(rest) != 0 {
		return PCRMap{}, fmt.Errorf("%d bytes behind a map of PCRs: %w", len(rest), ErrMalformed)
	}
	return m, nil
}
