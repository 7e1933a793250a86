// SPDX-License-Identifier: Apache-2.0

package vfio

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"hwvtpm/internal/memfault"
)

// BAR is a memory BAR. What the kernel lets a process map is accessed there,
// the rest (on older kernels the page of the MSI-X table) by the kernel.
// Accesses are of single aligned words, and their order is kept.
type BAR struct {
	Region
	dev     *Device
	windows []window
}

type window struct {
	off uint64
	mem []byte
}

// OpenBAR opens a BAR. mapped is false to have all accesses made by the kernel,
// which is several times slower.
func (d *Device) OpenBAR(index uint32, mapped bool) (*BAR, error) {
	r, err := d.Region(index)
	if err != nil {
		return nil, err
	}
	b := &BAR{Region: r, dev: d}
	if !mapped || !canMap {
		return b, nil
	}
	for _, a := range r.areas {
		mem, err := unix.Mmap(d.fd, int64(r.Offset+a.offset), int(a.size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			b.Close()
			return nil, fmt.Errorf("map %#x bytes at %#x of BAR %d: %w", a.size, a.offset, index, err)
		}
		b.windows = append(b.windows, window{a.offset, mem})
	}
	return b, nil
}

// at gives the window that has the whole word, if there is one.
func (b *BAR) at(off uint64) ([]byte, int) {
	for _, w := range b.windows {
		if off >= w.off && off-w.off <= uint64(len(w.mem))-4 {
			return w.mem, int(off - w.off)
		}
	}
	return nil, 0
}

func (b *BAR) checkWord(off uint64) error {
	if off%4 != 0 {
		return fmt.Errorf("word at %#x: %w", off, unix.EINVAL)
	}
	return b.check(off, 4)
}

// Load reads a little-endian word.
func (b *BAR) Load(off uint64) (v uint32, err error) {
	if err := b.checkWord(off); err != nil {
		return 0, err
	}
	if mem, i := b.at(off); mem != nil {
		err = touch(func() { v = load(mem, i) })
		return v, err
	}
	var word [4]byte
	err = b.dev.ReadRegion(b.Region, off, word[:])
	return binary.LittleEndian.Uint32(word[:]), err
}

// Store writes a little-endian word. It may return before the function has it.
func (b *BAR) Store(off uint64, v uint32) error {
	if err := b.checkWord(off); err != nil {
		return err
	}
	if mem, i := b.at(off); mem != nil {
		return touch(func() { store(mem, i, v) })
	}
	var word [4]byte
	binary.LittleEndian.PutUint32(word[:], v)
	return b.dev.WriteRegion(b.Region, off, word[:])
}

// Close unmaps the BAR.
func (b *BAR) Close() {
	for _, w := range b.windows {
		unix.Munmap(w.mem)
	}
	b.windows = nil
}

// touch runs f, which accesses a BAR. While its memory decoding is off, or the
// function is in a deep sleep, the kernel answers an access with SIGBUS.
func touch(f func()) error {
	err := memfault.Catch(func() error { f(); return nil })
	if err != nil {
		return fmt.Errorf("function takes no access to its BAR: %w", err)
	}
	return nil
}
