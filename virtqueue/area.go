// SPDX-License-Identifier: Apache-2.0

package virtqueue

import (
	"fmt"
	"math"

	"hwvtpm/virtqueue/internal/word"
)

// area is one part of a ring in guest memory, widened to whole 32-bit words so
// that each 16-bit field can be reached by an atomic access of the word around
// it (see "Memory ordering" in the package documentation).
//
//	mem:  |    word    |    word    | ... |
//	      |skip|<----- the part ----->|pad|     skip and pad are 0 or 2 bytes
//
// The widened range lies in one region like any other: openArea asked for it.
type area struct {
	mem  []byte // starts at a multiple of 4 in this process; so does its length
	skip int    // offset of the part in mem
}

// openArea finds the n bytes of a ring part at user address addr, which must be
// a multiple of align (2.7 and 2.8.10.1 give the alignment of each part).
func openArea(mem *Memory, addr, n, align uint64) (area, error) {
	if addr%align != 0 {
		return area{}, fmt.Errorf("%w: address %#x is not a multiple of %d", ErrConfig, addr, align)
	}
	if addr > math.MaxUint64-n-3 {
		return area{}, fmt.Errorf("%w: address %#x wraps around", ErrConfig, addr)
	}
	lo, hi := addr&^3, (addr+n+3)&^3
	b, err := mem.User(lo, hi-lo)
	if err != nil {
		return area{}, err
	}
	if !word.Aligned(b) {
		return area{}, fmt.Errorf("%w: the mapping behind %#x is misaligned", ErrConfig, addr)
	}
	return area{mem: b, skip: int(addr - lo)}, nil
}

// bytes returns the n bytes at off of the part, for plain copies that an
// atomic access before (acquire) or after (release) orders.
func (a *area) bytes(off, n int) []byte { return a.mem[a.skip+off : a.skip+off+n] }

// load32 loads the aligned word at off.
func (a *area) load32(off int) uint32 { return word.Load(a.mem, a.skip+off) }

// store32 stores the aligned word at off. The device must own all four bytes.
func (a *area) store32(off int, v uint32) { word.Store(a.mem, a.skip+off, v) }

// load16 loads the 16-bit field at off, which must be even.
func (a *area) load16(off int) uint16 {
	at, shift := a.half(off)
	return uint16(word.Load(a.mem, at) >> shift)
}

// set16 stores the 16-bit field at off where the other half of the word may
// belong to anybody. Two atomic steps, clear then set, leave the other half
// alone and, unlike a compare-and-swap loop, cannot be held up by a guest that
// keeps changing it. The driver may see the field as 0 in between, so this
// suits only a field that is a hint until the caller re-checks (avail_event).
func (a *area) set16(off int, v uint16) {
	at, shift := a.half(off)
	word.And(a.mem, at, ^(uint32(0xffff) << shift))
	word.Or(a.mem, at, uint32(v)<<shift)
}

// half returns the word around the 16-bit field at off, and the field's shift
// in it.
func (a *area) half(off int) (at int, shift uint) {
	o := a.skip + off
	return o &^ 3, uint(o&2) * 8
}
