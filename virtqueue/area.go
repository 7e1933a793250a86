// SPDX-License-Identifier: Apache-2.0

package virtqueue

import (
	"fmt"
	"math"
)

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
	if !aligned(b) {
		return area{}, fmt.Errorf("%w: the mapping behind %#x is misaligned", ErrConfig, addr)
	}
	return area{mem: b, skip: uint32(addr - lo)}, nil
}
