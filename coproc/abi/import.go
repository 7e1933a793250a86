// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"encoding/binary"
	"fmt"
)

// Sizes of an import, in bytes.
const (
	importHeader = 8

	// MaxImportChunk is how much one OpSlotImport carries.
	MaxImportChunk = MaxPayload - importHeader

	// MaxImport bounds the whole: a SlotCreate and a permanent state.
	MaxImport = SlotCreateSize + 1<<20
)

// ImportChunk is the payload of OpSlotImport: a piece of a SlotCreate, with the
// permanent state of a TPM by libtpms in clear behind it. The pieces of one import
// come in order, in one session; the first one begins anew. When the last one is
// there a slot is made with that TPM, whose identity and contents stay.
//
//	 0                4                8
//	+----------------+----------------+---------
//	| offset         | size of it all | bytes ...
//	+----------------+----------------+---------
//
// It is secret: clear the buffers that it was in.
type ImportChunk struct {
	Offset, Size uint32
	Bytes        []byte // 1 to MaxImportChunk; parsed: aliases the message
}

// Last tells whether the chunk is the last one.
func (c *ImportChunk) Last() bool { return uint64(c.Offset)+uint64(len(c.Bytes)) == uint64(c.Size) }

// AppendImportChunk appends c in wire form to dst.
func AppendImportChunk(dst []byte, c *ImportChunk) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, c.Offset)
	dst = binary.LittleEndian.AppendUint32(dst, c.Size)
	return append(dst, c.Bytes...)
}

// ParseImportChunk reads an ImportChunk.
func ParseImportChunk(b []byte) (ImportChunk, error) {
	if len(b) <= importHeader || len(b) > MaxPayload {
		return ImportChunk{}, fmt.Errorf("import chunk of %d bytes: %w", len(b), ErrMalformed)
	}
	c := ImportChunk{Offset: binary.LittleEndian.Uint32(b), Size: binary.LittleEndian.Uint32(b[4:]), Bytes: b[importHeader:]}
	if c.Size <= SlotCreateSize || c.Size > MaxImport || uint64(c.Offset)+uint64(len(c.Bytes)) > uint64(c.Size) {
		return ImportChunk{}, fmt.Errorf("import chunk of %d bytes at %d of %d: %w", len(c.Bytes), c.Offset, c.Size, ErrMalformed)
	}
	return c, nil
}
