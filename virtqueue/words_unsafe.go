// SPDX-License-Identifier: Apache-2.0

package virtqueue

import (
	"encoding/binary"
	"sync/atomic"
	"unsafe"
)

// area is one part of a ring in guest memory, widened to whole 32-bit words so
// that each 16-bit field can be reached by an atomic access of the word around
// it (see "Memory ordering" in the package documentation).
//
//	mem:  |    word    |    word    | ... |
//	      |skip|<----- the part ----->|pad|     skip and pad are 0 or 2 bytes
//
// The widening never leaves the region: a word does not cross a region's end
// because openArea asked for the whole of it.
type area struct {
	mem  []byte // starts at a multiple of 4 in this process; length is a multiple of 4
	skip uint32 // offset of the part in mem
}

// aligned reports whether the first byte of b, which must not be empty, is
// 4-byte aligned in this process.
func aligned(b []byte) bool {
	// SAFETY: the pointer is only looked at as a number.
	return uintptr(unsafe.Pointer(unsafe.SliceData(b)))%4 == 0
}

// wordAt returns the word that holds byte off of the part. Offsets come from
// ring positions already reduced modulo the queue size, never from the guest.
func (a *area) wordAt(off uint32) *uint32 {
	o := (a.skip + off) &^ 3
	b := a.mem[o : o+4]
	// SAFETY: b is 4 bytes inside mem; mem starts 4-byte aligned (openArea
	// checked it) and o is a multiple of 4.
	return (*uint32)(unsafe.Pointer(&b[0]))
}

// bytes returns the n bytes at off of the part, for plain copies that an
// atomic access before (acquire) or after (release) orders.
func (a *area) bytes(off, n uint32) []byte { return a.mem[a.skip+off : a.skip+off+n] }

// load32 loads the aligned little-endian word at off; it acquires.
func (a *area) load32(off uint32) uint32 { return loadWord(a.wordAt(off)) }

// store32 stores the aligned little-endian word at off; it releases, and is
// ordered before later loads. The device must own all four bytes.
func (a *area) store32(off, v uint32) { atomic.StoreUint32(a.wordAt(off), swapLE(v)) }

// load16 loads the 16-bit field at off, which must be even; it acquires.
func (a *area) load16(off uint32) uint16 {
	return uint16(loadWord(a.wordAt(off)) >> (8 * ((a.skip + off) & 2)))
}

// set16 stores the 16-bit field at off where the other half of the word may
// belong to anybody. Two atomic steps, clear then set, leave the other half
// alone and, unlike a compare-and-swap loop, cannot be held up by a guest that
// keeps changing it. The driver may see the field as 0 in between, so this
// suits only a field that is a hint until the caller re-checks (avail_event).
func (a *area) set16(off uint32, v uint16) {
	w := a.wordAt(off)
	shift := 8 * ((a.skip + off) & 2)
	atomic.AndUint32(w, swapLE(^(uint32(0xffff) << shift)))
	atomic.OrUint32(w, swapLE(uint32(v)<<shift))
}

// logWords returns mem as whole words, or nothing if it is misaligned.
func logWords(mem []byte) []uint32 {
	if len(mem) < 4 || !aligned(mem) {
		return nil
	}
	// SAFETY: mem is 4-byte aligned and holds len(mem)/4 whole words.
	return unsafe.Slice((*uint32)(unsafe.Pointer(&mem[0])), len(mem)/4)
}

// orWord sets the bits of the little-endian mask in w.
func orWord(w *uint32, mask uint32) { atomic.OrUint32(w, swapLE(mask)) }

// loadWord loads the little-endian word w.
func loadWord(w *uint32) uint32 { return swapLE(atomic.LoadUint32(w)) }

// swapLE converts between the host's byte order and little-endian, in which all
// of VIRTIO 1.x is (1.4). It is free on little-endian hosts.
func swapLE(v uint32) uint32 {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], v)
	return binary.LittleEndian.Uint32(b[:])
}
