// SPDX-License-Identifier: Apache-2.0

package bootevidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"hwvtpm/coproc/abi"
)

const (
	magic      = "HWVTPMBE"
	version    = 1
	headerSize = 76
)

var be = binary.BigEndian

// banks are those of a PCR map, with their TPM_ALG_ID (Part 2, 6.3) and the size of a
// digest. They stand in this order, which is that of a quote.
var banks = [...]struct {
	bank abi.Banks
	alg  uint16
	size int
}{
	{abi.BankSHA1, 0x0004, 20},
	{abi.BankSHA256, 0x000b, 32},
	{abi.BankSHA384, 0x000c, 48},
	{abi.BankSHA512, 0x000d, 64},
}

func (e *Evidence) size() int {
	n := headerSize + 3*2 + len(e.Slot) + len(e.Attest) + len(e.Signature) + 2
	for _, b := range banks {
		if e.PCRs.Banks()&b.bank != 0 {
			n += 2 + abi.HostPCRs*b.size
		}
	}
	return n
}

// Marshal gives the wire form, which is big-endian, as all that a TPM shows:
//
//	 0                       8         10        12
//	+-----------------------+---------+---------+
//	| magic "HWVTPMBE"      | version | size    |
//	+-----------------------+---------+---------+
//	| run id (32)                               | 12
//	+-------------------------------------------+
//	| SHA-256 of the AIK's certificate (32)     | 44
//	+-------------------------------------------+
//	| length (2), name of the slot              | 76
//	| length (2), TPMS_ATTEST                   |
//	| length (2), TPMT_SIGNATURE                |
//	+-------------------------------------------+
//	| banks (2), and for each:                  |
//	|   TPM_ALG_ID (2), PCR 0, 1, ... 7         |
//	+-------------------------------------------+
//
// size is that of all of it. In the NV index there are zeros behind it.
func (e *Evidence) Marshal() ([]byte, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	b := append(make([]byte, 0, e.size()), magic...)
	b = be.AppendUint16(b, version)
	b = be.AppendUint16(b, uint16(e.size()))
	b = append(append(b, e.Run[:]...), e.AIK[:]...)
	for _, field := range [][]byte{[]byte(e.Slot), e.Attest, e.Signature} {
		b = append(be.AppendUint16(b, uint16(len(field))), field...)
	}
	count := len(b)
	b = append(b, 0, 0)
	for _, k := range banks {
		if e.PCRs.Banks()&k.bank == 0 {
			continue
		}
		b[count+1]++
		b = be.AppendUint16(b, k.alg)
		for pcr := range abi.HostPCRs {
			b = append(b, e.PCRs.Value(k.bank, pcr)...)
		}
	}
	return b, nil
}

// Parse reads the wire form, with or without zeros behind it. Errors are
// ErrMalformed. Nothing is verified yet.
func Parse(b []byte) (*Evidence, error) {
	if len(b) < headerSize || len(b) > abi.MaxBootEvidence || string(b[:8]) != magic {
		return nil, fmt.Errorf("%d bytes: %w", len(b), ErrMalformed)
	}
	if v := be.Uint16(b[8:]); v != version {
		return nil, fmt.Errorf("version %d: %w", v, ErrMalformed)
	}
	size := int(be.Uint16(b[10:]))
	if size < headerSize || size > len(b) || len(bytes.TrimRight(b[size:], "\x00")) != 0 {
		return nil, fmt.Errorf("%d bytes, or %d: %w", size, len(b), ErrMalformed)
	}
	e := &Evidence{AIK: [sha256.Size]byte(b[44:])}
	copy(e.Run[:], b[12:])
	r := rest(bytes.Clone(b[headerSize:size]))
	e.Slot, e.Attest, e.Signature = string(r.sized()), r.sized(), r.sized()
	if err := e.parseBanks(&r); err != nil {
		return nil, err
	}
	return e, e.check()
}

// parseBanks reads the values, which end the evidence. Banks come in their order.
func (e *Evidence) parseBanks(r *rest) error {
	left := r.u16()
	for _, k := range banks {
		if left == 0 || len(*r) < 2 || be.Uint16(*r) != k.alg {
			continue
		}
		left--
		r.next(2)
		var values [][]byte
		for range abi.HostPCRs {
			values = append(values, r.next(k.size))
		}
		if err := e.PCRs.SetBank(k.bank, values); err != nil {
			return fmt.Errorf("%w: %w", ErrMalformed, err)
		}
	}
	if left != 0 || len(*r) != 0 {
		return fmt.Errorf("values of PCRs: %w", ErrMalformed)
	}
	return nil
}

// rest is what has not been read yet. A read behind the end gives nil, and leaves
// nothing.
type rest []byte

func (r *rest) next(n int) []byte {
	if n < 0 || n > len(*r) {
		*r = nil
		return nil
	}
	head := (*r)[:n:n]
	*r = (*r)[n:]
	return head
}

// u16 is -1 behind the end.
func (r *rest) u16() int {
	if b := r.next(2); b != nil {
		return int(be.Uint16(b))
	}
	return -1
}

func (r *rest) sized() []byte { return r.next(r.u16()) }
