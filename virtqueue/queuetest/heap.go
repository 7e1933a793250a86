// SPDX-License-Identifier: Apache-2.0

package queuetest

import "slices"

// extent is a piece of the driver's memory.
type extent struct{ off, n int }

// heap hands out pieces of memory, first fit, in units of 16 bytes.
type heap struct{ free []extent } // ordered by off, never adjacent

// alloc returns n bytes, or false if no free piece is that large. Nothing is
// free of charge: 0 bytes take a unit too, so that each has its own address.
func (h *heap) alloc(n int) (extent, bool) {
	n = max(16, (n+15)&^15)
	for i := range h.free {
		f := &h.free[i]
		if f.n < n {
			continue
		}
		e := extent{f.off, n}
		f.off, f.n = f.off+n, f.n-n
		if f.n == 0 {
			h.free = slices.Delete(h.free, i, i+1)
		}
		return e, true
	}
	return extent{}, false
}

// release takes e back and joins it with its neighbours.
func (h *heap) release(e extent) {
	i, _ := slices.BinarySearchFunc(h.free, e, func(a, b extent) int { return a.off - b.off })
	h.free = slices.Insert(h.free, i, e)
	if i+1 < len(h.free) && h.free[i].off+h.free[i].n == h.free[i+1].off {
		h.free[i].n += h.free[i+1].n
		h.free = slices.Delete(h.free, i+1, i+2)
	}
	if i > 0 && h.free[i-1].off+h.free[i-1].n == h.free[i].off {
		h.free[i-1].n += h.free[i].n
		h.free = slices.Delete(h.free, i, i+1)
	}
}
