// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"golang.org/x/sys/unix"

	"hwvtpm/virtqueue"
)

// sharedMap is a mapping of part of a file that the front-end passed.
//
//	file:   0 ....... base |.... off .......... off+size ....| end
//	mapped:                [==================================]   whole
//	used:                        [=============]                  mem
//
// base and end are rounded to what the file system can map.
type sharedMap struct {
	whole []byte
	mem   []byte
}

var (
	errFileKind = errors.New("not a regular file or memfd")
	errFileSize = errors.New("file is shorter than the region")
	errFileSpan = errors.New("empty region or address overflow")
)

// mapShared maps size bytes at offset off of f, shared and writable. The file
// must be that long now; it can still be truncated later, see memfault. f is
// not taken over, and not needed after the call.
func mapShared(f *fd, off, size uint64) (*sharedMap, error) {
	if size == 0 || off > math.MaxInt64 || size > math.MaxInt64-off {
		return nil, errFileSpan
	}
	var st unix.Stat_t
	if err := unix.Fstat(f.n, &st); err != nil {
		return nil, fmt.Errorf("fstat: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, errFileKind
	}
	if uint64(st.Size) < off+size {
		return nil, errFileSize
	}
	unit, err := mapUnit(f)
	if err != nil {
		return nil, err
	}
	base := off &^ (unit - 1)
	length := (off + size - base + unit - 1) &^ (unit - 1)
	if length > math.MaxInt {
		return nil, errFileSpan
	}
	whole, err := unix.Mmap(f.n, int64(base), int(length), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("mmap: %w", err)
	}
	// Guest memory has no place in this process's core dumps.
	_ = unix.Madvise(whole, unix.MADV_DONTDUMP)
	start := off - base
	return &sharedMap{whole: whole, mem: whole[start : start+size : start+size]}, nil
}

// mapUnit is the granule of offset and length: the page size, but the huge
// page size on hugetlbfs, where mmap and munmap refuse anything else.
func mapUnit(f *fd) (uint64, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(f.n, &fs); err != nil {
		return 0, fmt.Errorf("fstatfs: %w", err)
	}
	if fs.Type == unix.HUGETLBFS_MAGIC && fs.Bsize > 0 && fs.Bsize&(fs.Bsize-1) == 0 {
		return uint64(fs.Bsize), nil
	}
	return uint64(unix.Getpagesize()), nil
}

// unmap releases the mapping; nothing may hold a slice of it. A nil map is
// legal, a second call does nothing.
func (m *sharedMap) unmap() {
	if m == nil || m.whole == nil {
		return
	}
	_ = unix.Munmap(m.whole)
	m.whole, m.mem = nil, nil
}

// memSlot is one region of guest memory with its mapping.
type memSlot struct {
	memRegion
	*sharedMap
}

// memTable is the guest memory of one session. It belongs to the session
// goroutine; the virtqueue.Memory in it is shared with the rings.
type memTable struct {
	slots  []memSlot
	memory *virtqueue.Memory // nil while there are no slots
}

func mapSlot(r memRegion, f *fd) (memSlot, error) {
	m, err := mapShared(f, r.offset, r.size)
	if err != nil {
		return memSlot{}, fmt.Errorf("region at guest address %#x: %w", r.gpa, err)
	}
	return memSlot{r, m}, nil
}

// newMemTable checks the slots against each other (overlap, overflow) and
// makes the translation for them. It takes nothing over.
func newMemTable(slots []memSlot) (memTable, error) {
	if len(slots) == 0 {
		return memTable{}, nil
	}
	regions := make([]virtqueue.Region, len(slots))
	for i, s := range slots {
		regions[i] = virtqueue.Region{GPA: s.gpa, UserAddr: s.user, Mem: s.mem}
	}
	memory, err := virtqueue.NewMemory(regions)
	if err != nil {
		return memTable{}, err
	}
	return memTable{slots: slots, memory: memory}, nil
}

// index finds the slot that REM_MEM_REG means: guest address, user address
// and size count, the mmap offset does not. -1: none.
func (t *memTable) index(r memRegion) int {
	return slices.IndexFunc(t.slots, func(s memSlot) bool {
		return s.gpa == r.gpa && s.user == r.user && s.size == r.size
	})
}

func unmapSlots(slots []memSlot) {
	for _, s := range slots {
		s.unmap()
	}
}
