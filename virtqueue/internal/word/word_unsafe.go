// SPDX-License-Identifier: Apache-2.0

// Package word accesses aligned little-endian 32-bit words of memory shared
// with a guest, atomically and in sequentially consistent order: a load
// acquires, a store releases, and a store is ordered before a later load.
//
// Offsets that leave mem panic like any slice index; callers derive them from
// positions they have already bounded, never straight from the guest.
package word

import (
	"encoding/binary"
	"sync/atomic"
	"unsafe"
)

// Aligned reports whether words of mem can be accessed: mem starts at a
// multiple of 4 in this process.
func Aligned(mem []byte) bool {
	// SAFETY: the pointer is only looked at as a number.
	return uintptr(unsafe.Pointer(unsafe.SliceData(mem)))%4 == 0
}

// Load loads the word at off.
func Load(mem []byte, off int) uint32 { return swap(atomic.LoadUint32(at(mem, off))) }

// Store stores v at off.
func Store(mem []byte, off int, v uint32) { atomic.StoreUint32(at(mem, off), swap(v)) }

// Or sets the bits of mask in the word at off.
func Or(mem []byte, off int, mask uint32) { atomic.OrUint32(at(mem, off), swap(mask)) }

// And clears the bits outside mask in the word at off.
func And(mem []byte, off int, mask uint32) { atomic.AndUint32(at(mem, off), swap(mask)) }

// at returns the word at off. Preconditions: Aligned(mem), off a multiple of 4.
func at(mem []byte, off int) *uint32 {
	b := mem[off : off+4]
	// SAFETY: b is 4 bytes inside mem, and 4-byte aligned by the preconditions.
	return (*uint32)(unsafe.Pointer(&b[0]))
}

// swap converts between the host's byte order and little-endian, in which all
// of VIRTIO 1.x is (1.4). It is free on little-endian hosts.
func swap(v uint32) uint32 {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], v)
	return binary.LittleEndian.Uint32(b[:])
}
