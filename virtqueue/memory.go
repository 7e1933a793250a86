// SPDX-License-Identifier: Apache-2.0

package virtqueue

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sort"
)

// Region is one contiguous piece of guest memory and where it is mapped.
//
//	guest physical   [GPA,      GPA+len(Mem))        what descriptors name
//	user address     [UserAddr, UserAddr+len(Mem))   what ring addresses name:
//	                                                 the front-end's own mapping
//	this process     Mem                             what this package touches
type Region struct {
	GPA      uint64
	UserAddr uint64
	Mem      []byte
}

// Memory is guest memory as a set of regions. It is immutable and safe for
// concurrent use. The bytes it hands out are shared with the guest: copy them
// once, then look.
//
// Memory does not own the mappings. Whoever unmaps one first takes the Memory
// away from every Queue (see [Queue.SetMemory], [Queue.Close]).
type Memory struct {
	gpa  []span // ordered by guest physical address; peer is the user address
	user []span // ordered by user address; peer is the guest physical address
}

// span is a region as seen from one of its two address spaces.
type span struct {
	start, peer uint64
	mem         []byte
}

// NewMemory checks and indexes regions. It refuses empty regions, regions that
// overlap in guest physical or in user addresses, and ranges that wrap around
// the end of the address space. No regions at all is valid: nothing then
// translates.
func NewMemory(regions []Region) (*Memory, error) {
	m := new(Memory)
	for i, r := range regions {
		if err := checkRegion(r); err != nil {
			return nil, fmt.Errorf("region %d: %w", i, err)
		}
		mem := slices.Clip(r.Mem) // nobody appends into what lies behind a region
		m.gpa = append(m.gpa, span{r.GPA, r.UserAddr, mem})
		m.user = append(m.user, span{r.UserAddr, r.GPA, mem})
	}
	if err := sortSpans(m.gpa); err != nil {
		return nil, fmt.Errorf("guest physical addresses: %w", err)
	}
	if err := sortSpans(m.user); err != nil {
		return nil, fmt.Errorf("user addresses: %w", err)
	}
	return m, nil
}

// Guest returns the n bytes at guest physical address gpa. The range must lie
// in one region: ErrNoRegion if it begins outside, ErrCrossRegion if it ends
// outside. n = 0 yields an empty slice at any address of a region.
func (m *Memory) Guest(gpa, n uint64) ([]byte, error) { return slice(m.gpa, gpa, n) }

// User returns the n bytes at the front-end's user address addr, under the
// rules of [Memory.Guest].
func (m *Memory) User(addr, n uint64) ([]byte, error) { return slice(m.user, addr, n) }

// UserToGuest translates one user address to the guest physical address of the
// same byte. It reports false if no region holds it.
func (m *Memory) UserToGuest(addr uint64) (uint64, bool) {
	s := locate(m.user, addr)
	if s == nil {
		return 0, false
	}
	return s.peer + (addr - s.start), true
}

func checkRegion(r Region) error {
	n := uint64(len(r.Mem))
	if n == 0 {
		return fmt.Errorf("%w: empty", ErrRegions)
	}
	if r.GPA > math.MaxUint64-n || r.UserAddr > math.MaxUint64-n {
		return fmt.Errorf("%w: wraps around the address space", ErrRegions)
	}
	return nil
}

// sortSpans orders spans by start and refuses overlaps.
func sortSpans(spans []span) error {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.start, b.start) })
	for i := 1; i < len(spans); i++ {
		prev := spans[i-1]
		if prev.start+uint64(len(prev.mem)) > spans[i].start {
			return fmt.Errorf("%w: regions at %#x and %#x overlap", ErrRegions, prev.start, spans[i].start)
		}
	}
	return nil
}

// locate returns the span that holds addr, or nil.
func locate(spans []span, addr uint64) *span {
	after := sort.Search(len(spans), func(i int) bool { return spans[i].start > addr })
	if after == 0 {
		return nil
	}
	s := &spans[after-1]
	if addr-s.start >= uint64(len(s.mem)) {
		return nil
	}
	return s
}

func slice(spans []span, addr, n uint64) ([]byte, error) {
	s := locate(spans, addr)
	if s == nil {
		return nil, fmt.Errorf("%w: %d bytes at %#x", ErrNoRegion, n, addr)
	}
	off := addr - s.start
	if n > uint64(len(s.mem))-off {
		return nil, fmt.Errorf("%w: %d bytes at %#x", ErrCrossRegion, n, addr)
	}
	return s.mem[off : off+n : off+n], nil
}
