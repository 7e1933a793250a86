// SPDX-License-Identifier: Apache-2.0

package queuetest

import (
	"fmt"

	"hwvtpm/virtqueue"
	"hwvtpm/virtqueue/internal/word"
)

// Addresses of memory that NewDriver allocates. They differ in every digit
// group, so a test notices when one kind of address is taken for the other.
const (
	DefaultGPA      = 0x0000_0001_4000_0000
	DefaultUserAddr = 0x0000_7f5a_1230_0000
)

const (
	defaultSize = 16
	defaultHeap = 64 << 10
	freshPacked = 0x8000_8000 // both wrap counters 1, both slots 0
)

// Options describe a driver. The zero value is a split ring of 16 in memory of
// its own, without INDIRECT_DESC and EVENT_IDX.
type Options struct {
	Size     uint16 // Queue Size; 0: 16
	Packed   bool   // VIRTIO_F_RING_PACKED
	Indirect bool   // VIRTIO_F_INDIRECT_DESC: Add may build indirect tables
	EventIdx bool   // VIRTIO_F_EVENT_IDX

	// Mem is the memory to use, at least MinMemory(o) bytes and aligned to 16
	// in this process and in both address spaces below. What is beyond the ring
	// becomes heap. nil: allocated, with a heap of 64 KiB.
	Mem []byte
	// Place says where in Mem the parts are, for a ring that somebody else laid
	// out. nil: as Layout draws it.
	Place *Layout
	// GPA and UserAddr are the addresses of Mem[0]. They are ignored, and
	// DefaultGPA and DefaultUserAddr used, if Mem is nil.
	GPA, UserAddr uint64

	// Base is where the ring starts, encoded as virtqueue.Config.Base, so that
	// index wrap-around is near; nothing is in flight. 0: a ring that never ran.
	Base uint32
}

// Layout tells where in the memory the parts of the ring are, as offsets.
//
//	0        Driver    Device    Heap               End
//	|  Desc  |  avail  |  used   |  buffers, tables  |     split
//	|  ring  |  event  |  event  |  buffers, tables  |     packed
type Layout struct {
	Desc, Driver, Device, Heap, End int
}

// MinMemory returns how many bytes of memory a driver with these options needs
// for its ring and a heap of one page.
func MinMemory(o Options) int { return layout(o.defaults()).Heap + 4096 }

func (o Options) defaults() Options {
	if o.Size == 0 {
		o.Size = defaultSize
	}
	if o.Packed && o.Base == 0 {
		o.Base = freshPacked
	}
	return o
}

func layout(o Options) Layout {
	if o.Place != nil {
		return *o.Place
	}
	desc, driver, device := o.sizes()
	l := Layout{Driver: desc}
	l.Device = l.Driver + (driver+3)&^3
	l.Heap = (l.Device + device + 15) &^ 15
	l.End = len(o.Mem)
	return l
}

// sizes of the ring's parts in bytes (2.7, 2.8).
func (o Options) sizes() (desc, driver, device int) {
	n := int(o.Size)
	if o.Packed {
		return 16 * n, 4, 4
	}
	return 16 * n, 6 + 2*n, 6 + 8*n
}

// withMemory allocates memory if there is none and checks it. Options are
// written by the author of a test: a mistake panics.
func (o Options) withMemory() Options {
	o = o.defaults()
	if o.Mem == nil {
		o.Mem = make([]byte, layout(o).Heap+defaultHeap)
		o.GPA, o.UserAddr = DefaultGPA, DefaultUserAddr
	}
	if len(o.Mem) < MinMemory(o) {
		panic(fmt.Sprintf("queuetest: %d bytes of memory, need %d", len(o.Mem), MinMemory(o)))
	}
	if !word.Aligned(o.Mem) || o.GPA%16 != 0 || o.UserAddr%16 != 0 {
		panic("queuetest: misaligned memory")
	}
	return o
}

func (o Options) features() uint64 {
	f := uint64(1) << virtqueue.FeatureVersion1
	if o.Packed {
		f |= 1 << virtqueue.FeatureRingPacked
	}
	if o.Indirect {
		f |= 1 << virtqueue.FeatureIndirectDesc
	}
	if o.EventIdx {
		f |= 1 << virtqueue.FeatureEventIdx
	}
	return f
}
