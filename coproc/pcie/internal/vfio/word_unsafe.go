// SPDX-License-Identifier: Apache-2.0

package vfio

import (
	"encoding/binary"
	"runtime"
	"sync/atomic"
	"unsafe"
)

// canMap tells whether a mapped BAR is of use. Go has no store to a device that
// keeps behind all stores to memory before it, as a doorbell must: on amd64
// every plain store is one, elsewhere the kernel has to do it.
const canMap = runtime.GOARCH == "amd64"

// load reads the little-endian word at off of a mapped BAR.
func load(mem []byte, off int) uint32 {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], atomic.LoadUint32(wordAt(mem, off)))
	return binary.LittleEndian.Uint32(b[:])
}

// store writes it. It is not atomic.StoreUint32, which is an exchange on amd64:
// a device would see a locked read and a write. As it is not inlined, the
// compiler moves no store over it.
//
//go:noinline
func store(mem []byte, off int, v uint32) {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], v)
	*wordAt(mem, off) = binary.NativeEndian.Uint32(b[:])
}

func wordAt(mem []byte, off int) *uint32 {
	b := mem[off : off+4]
	// SAFETY: b has four bytes. They are aligned, since mem is a mapping and off
	// was checked.
	return (*uint32)(unsafe.Pointer(unsafe.SliceData(b)))
}
