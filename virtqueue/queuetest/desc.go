// SPDX-License-Identifier: Apache-2.0

package queuetest

import (
	"encoding/binary"

	"hwvtpm/virtqueue/internal/word"
)

// Descriptor flags (VIRTIO 1.3 2.7.5, 2.8.1).
const (
	FlagNext     = 1 << 0
	FlagWrite    = 1 << 1
	FlagIndirect = 1 << 2
	FlagAvail    = 1 << 7  // packed
	FlagUsed     = 1 << 15 // packed
)

// Flags of the notification areas (2.7.7, 2.7.10, 2.8.10).
const (
	AvailNoInterrupt = 1 // split, available ring flags
	UsedNoNotify     = 1 // split, used ring flags

	EventEnable  = 0 // packed, event suppression flags
	EventDisable = 1
	EventDesc    = 2
)

const descSize = 16

// Desc is a descriptor of either format. Link is the next index in a split
// table and the buffer id in a packed one.
type Desc struct {
	Addr  uint64
	Len   uint32
	Flags uint16
	Link  uint16
}

// PutDesc writes desc at offset off of the memory, in the ring's format. The
// word with the flags is stored last and atomically.
func (d *Driver) PutDesc(off int, desc Desc) {
	b := d.o.Mem[off : off+descSize]
	binary.LittleEndian.PutUint64(b, desc.Addr)
	binary.LittleEndian.PutUint32(b[8:], desc.Len)
	lo, hi := desc.Flags, desc.Link
	if d.o.Packed {
		lo, hi = hi, lo
	}
	word.Store(d.o.Mem, off+12, uint32(lo)|uint32(hi)<<16)
}

// GetDesc reads the descriptor at offset off of the memory.
func (d *Driver) GetDesc(off int) Desc {
	lo, hi := d.halves(off + 12)
	desc := Desc{
		Addr:  binary.LittleEndian.Uint64(d.o.Mem[off:]),
		Len:   binary.LittleEndian.Uint32(d.o.Mem[off+8:]),
		Flags: lo,
		Link:  hi,
	}
	if d.o.Packed {
		desc.Flags, desc.Link = hi, lo
	}
	return desc
}

// SetDesc writes entry i of the descriptor table or ring.
func (d *Driver) SetDesc(i int, desc Desc) { d.PutDesc(d.lay.Desc+i*descSize, desc) }

// Desc reads entry i of the descriptor table or ring.
func (d *Driver) Desc(i int) Desc { return d.GetDesc(d.lay.Desc + i*descSize) }

// halves loads the word at off as its two 16-bit fields.
func (d *Driver) halves(off int) (lo, hi uint16) {
	w := word.Load(d.o.Mem, off)
	return uint16(w), uint16(w >> 16)
}

// setHalves stores the word at off.
func (d *Driver) setHalves(off int, lo, hi uint16) {
	word.Store(d.o.Mem, off, uint32(lo)|uint32(hi)<<16)
}

// setHalf stores the 16-bit field at off, which is even, in a word that only the
// driver writes.
func (d *Driver) setHalf(off int, v uint16) {
	lo, hi := d.halves(off &^ 3)
	if off&2 == 0 {
		lo = v
	} else {
		hi = v
	}
	d.setHalves(off&^3, lo, hi)
}
