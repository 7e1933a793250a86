// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"encoding/binary"
	"sync/atomic"
	"unsafe"
)

// LoadWord and StoreWord access a little-endian word in memory that both sides
// share. What was written before the store is seen after the load that finds
// it: they publish completion entries. off must be a multiple of 4, of memory
// that is itself aligned, as every mapping is.

// LoadWord reads the word at off.
func LoadWord(mem []byte, off int) uint32 {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], atomic.LoadUint32(wordAt(mem, off)))
	return binary.LittleEndian.Uint32(b[:])
}

// StoreWord writes the word at off.
func StoreWord(mem []byte, off int, v uint32) {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], v)
	atomic.StoreUint32(wordAt(mem, off), binary.NativeEndian.Uint32(b[:]))
}

func wordAt(mem []byte, off int) *uint32 {
	b := mem[off : off+4]
	// SAFETY: b has four bytes, and the caller sees to their alignment.
	return (*uint32)(unsafe.Pointer(unsafe.SliceData(b)))
}
