// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"encoding/binary"
	"fmt"
)

// OpHash brings a hash sequence to the TPM: the signals _TPM_Hash_Start, _TPM_Hash_Data
// and _TPM_Hash_End (TCG Part 1, "H-CRTM" and "D-RTM"; Part 3, 22.9 to 22.11). Payload:
// HashPlace and bytes, in order and without gaps; offset 0 begins anew -> no payload,
// but for the piece that makes the sequence whole. This one runs it, as one step at
// locality 4, and is answered with a TPM response of 10 bytes; its number is used as
// that of an OpExecute, so that it is done once. Text if the status is not OK.
//
// The pieces are the worker's, and go with it: StatusOrder then says to start over.
// StatusUnsupported: PCR 0 is the host's (OpMapPCRs), and the TPM was not started, so
// that the sequence would set it.
const OpHash Opcode = 0x12

// Sizes of hash sequences, in bytes.
const (
	MaxHash       = 1 << 20 // of all of it
	HashPlaceSize = 8
	MaxHashChunk  = MaxPayload - HashPlaceSize // what one OpHash carries
)

// HashPlace says where in a hash sequence bytes are.
//
//	 0                4                8
//	+----------------+----------------+----
//	| size (all)     | offset         | bytes ...
//	+----------------+----------------+----
type HashPlace struct {
	Size   uint32 // at most MaxHash; 0: a sequence without data
	Offset uint32
}

// AppendHashPlace appends p in wire form to dst. The bytes follow.
func AppendHashPlace(dst []byte, p HashPlace) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, p.Size)
	return binary.LittleEndian.AppendUint32(dst, p.Offset)
}

// ParseHashPlace reads a HashPlace, and gives the bytes that follow it: some, unless
// the sequence has none, and no more than the sequence.
func ParseHashPlace(b []byte) (p HashPlace, rest []byte, err error) {
	if len(b) < HashPlaceSize {
		return p, nil, fmt.Errorf("place in a hash sequence: %w", ErrMalformed)
	}
	p = HashPlace{Size: binary.LittleEndian.Uint32(b), Offset: binary.LittleEndian.Uint32(b[4:])}
	rest = b[HashPlaceSize:]
	if p.Size > MaxHash || p.Offset > p.Size || uint64(len(rest)) > uint64(p.Size-p.Offset) || len(rest) == 0 && p.Size > 0 {
		return HashPlace{}, nil, fmt.Errorf("%d bytes at %d of a hash sequence of %d: %w", len(rest), p.Offset, p.Size, ErrMalformed)
	}
	return p, rest, nil
}
