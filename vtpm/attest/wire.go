// SPDX-License-Identifier: Apache-2.0

package attest

import "encoding/binary"

// wire reads what a TPM marshalled: integers in network order, and buffers behind
// their size (TCG Part 2, "Sized buffers"). After something that is not there it is
// broken, and gives zeros. Buffers are the data's own memory.
type wire struct {
	rest   []byte
	broken bool
}

func (w *wire) take(n int) []byte {
	if w.broken || n > len(w.rest) {
		w.rest, w.broken = nil, true
		return nil
	}
	b := w.rest[:n:n]
	w.rest = w.rest[n:]
	return b
}

func (w *wire) u8() uint8 {
	if b := w.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (w *wire) u16() uint16 {
	if b := w.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (w *wire) u32() uint32 {
	if b := w.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (w *wire) u64() uint64 {
	if b := w.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// sized is a buffer behind its 16-bit size, of so many bytes at most.
func (w *wire) sized(most int) []byte {
	n := int(w.u16())
	if n > most {
		w.broken = true
	}
	return w.take(n)
}

// whole says whether all was there, and nothing more.
func (w *wire) whole() bool { return !w.broken && len(w.rest) == 0 }
