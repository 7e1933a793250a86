// SPDX-License-Identifier: Apache-2.0

package board

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/abi/vfiouser"
	"hwvtpm/internal/memfault"
)

// maxRanges bounds what a client can map: behind a virtual IOMMU each page
// comes as a range of its own.
const maxRanges = 8192

var errNoMemory = errors.New("address is not memory that the card may use")

// dmaRange is one mapped range of the client's memory.
type dmaRange struct {
	vfiouser.DMAMap
	mem []byte // nil: known, but without a file to map
}

func (r *dmaRange) last() uint64 { return r.Address + r.Size - 1 }

// memory is the client's memory, by IOVA. The card's mutex guards it, so that
// nothing is in use when a range is removed.
type memory struct {
	ranges []dmaRange // by address, none over another
}

// find gives the index of the first range that ends at address or above.
func (m *memory) find(address uint64) int {
	i, _ := slices.BinarySearchFunc(m.ranges, address, func(r dmaRange, a uint64) int {
		if r.last() < a {
			return -1
		}
		return 1
	})
	return i
}

// add maps a range. fd stays the caller's.
func (m *memory) add(d vfiouser.DMAMap, fd *vfiouser.FD) error {
	r := dmaRange{DMAMap: d}
	i := m.find(d.Address)
	switch {
	case i < len(m.ranges) && m.ranges[i].Address <= r.last():
		return fmt.Errorf("range at %#x is over another: %w", d.Address, unix.EEXIST)
	case len(m.ranges) >= maxRanges:
		return fmt.Errorf("more than %d ranges: %w", maxRanges, unix.ENOSPC)
	case d.Size > 1<<46 || d.Offset > 1<<62 || d.Address%abi.PageSize != 0:
		// A page of the client's is one of ours, so that words in it are aligned.
		return fmt.Errorf("range of %#x bytes at %#x, offset %#x: %w", d.Size, d.Address, d.Offset, unix.EINVAL)
	}
	if fd != nil && d.Flags&vfiouser.DMARead != 0 {
		prot := unix.PROT_READ
		if d.Flags&vfiouser.DMAWrite != 0 {
			prot |= unix.PROT_WRITE
		}
		mem, err := unix.Mmap(fd.Num(), int64(d.Offset), int(d.Size), prot, unix.MAP_SHARED|unix.MAP_NORESERVE)
		if err != nil {
			return fmt.Errorf("map range at %#x: %w", d.Address, err)
		}
		r.mem = mem
	}
	m.ranges = slices.Insert(m.ranges, i, r)
	return nil
}

// remove forgets the ranges inside of the given one. One that is only partly
// inside would be torn, which no client asks for: then nothing is removed.
func (m *memory) remove(address, size uint64) error {
	last := address + size - 1
	from := m.find(address)
	to := from
	for to < len(m.ranges) && m.ranges[to].Address <= last {
		if m.ranges[to].Address < address || m.ranges[to].last() > last {
			return fmt.Errorf("range at %#x is unmapped in part: %w", m.ranges[to].Address, unix.EINVAL)
		}
		to++
	}
	for i := from; i < to; i++ {
		unmap(m.ranges[i].mem)
	}
	m.ranges = slices.Delete(m.ranges, from, to)
	return nil
}

func (m *memory) clear() {
	for i := range m.ranges {
		unmap(m.ranges[i].mem)
	}
	m.ranges = nil
}

func unmap(mem []byte) {
	if mem != nil {
		unix.Munmap(mem) // cannot fail: it is the slice of Mmap
	}
}

// bytes gives n bytes at address, which are inside of one range.
func (m *memory) bytes(address uint64, n int, write bool) ([]byte, error) {
	i := m.find(address)
	if i == len(m.ranges) {
		return nil, fmt.Errorf("%#x: %w", address, errNoMemory)
	}
	r := &m.ranges[i]
	if address < r.Address || r.mem == nil || uint64(n)-1 > r.last()-address || write && r.Flags&vfiouser.DMAWrite == 0 {
		return nil, fmt.Errorf("%#x: %w", address, errNoMemory)
	}
	off := address - r.Address
	return r.mem[off : off+uint64(n)], nil
}

// read copies from the client's memory.
func (m *memory) read(address uint64, b []byte) error {
	src, err := m.bytes(address, len(b), false)
	if err != nil {
		return err
	}
	return touch(func() { copy(b, src) })
}

// write copies to the client's memory.
func (m *memory) write(address uint64, b []byte) error {
	dst, err := m.bytes(address, len(b), true)
	if err != nil {
		return err
	}
	return touch(func() { copy(dst, b) })
}

// publish writes b, whose word at last becomes visible after all others, and
// after all that was written before.
func (m *memory) publish(address uint64, b []byte, last int, word uint32) error {
	dst, err := m.bytes(address, len(b), true)
	if err != nil {
		return err
	}
	return touch(func() {
		copy(dst[:last], b[:last])
		abi.StoreWord(dst, last, word)
	})
}

// touch runs f, which uses mapped memory. The client can make its file shorter
// at any time: that is an error then, not the end of the card.
func touch(f func()) error {
	return memfault.Catch(func() error { f(); return nil })
}
