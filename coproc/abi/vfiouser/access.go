// SPDX-License-Identifier: Apache-2.0

package vfiouser

import "fmt"

// Indices of VFIO's regions and interrupts of a PCI device (<linux/vfio.h>).
const (
	RegionBAR0   = 0
	RegionConfig = 7
	PCIRegions   = 9

	IRQMSIX = 2
	PCIIRQs = 5
)

// Flags of an IRQSet: what its data is, and what to do.
const (
	irqDataNone      = 1 << 0
	irqDataBool      = 1 << 1
	irqDataEventFD   = 1 << 2
	irqActionMask    = 1 << 3
	irqActionUnmask  = 1 << 4
	irqActionTrigger = 1 << 5

	irqDataMask = irqDataNone | irqDataBool | irqDataEventFD
	irqActions  = irqActionMask | irqActionUnmask | irqActionTrigger
)

// irqSet configures interrupts (spec, "VFIO_USER_DEVICE_SET_IRQS").
//
//	 0            4            8            12           16           20
//	+------------+------------+------------+------------+------------+
//	| argsz      | flags      | index      | start      | count      | data...
//	+------------+------------+------------+------------+------------+
type irqSet struct {
	flags, index, start, count uint32
}

func (s irqSet) append(dst []byte) []byte {
	return appendWords(dst, irqSetSize, s.flags, s.index, s.start, s.count)
}

// parseIRQSet reads an irqSet. The data, an array of booleans, is only
// measured: nothing here is ever masked.
func parseIRQSet(b []byte) (irqSet, error) {
	if len(b) < irqSetSize {
		return irqSet{}, fmt.Errorf("IRQ set: %w", ErrProtocol)
	}
	s := irqSet{
		flags: order.Uint32(b[4:]), index: order.Uint32(b[8:]),
		start: order.Uint32(b[12:]), count: order.Uint32(b[16:]),
	}
	data := uint64(0)
	if s.flags&irqDataBool != 0 {
		data = uint64(s.count)
	}
	one := func(bits uint32) bool { return bits != 0 && bits&(bits-1) == 0 }
	if uint64(len(b)-irqSetSize) != data || s.start+s.count < s.start ||
		!one(s.flags&irqDataMask) || !one(s.flags&irqActions) || s.flags&^(irqDataMask|irqActions) != 0 {
		return irqSet{}, fmt.Errorf("IRQ set, flags %#x, %d from %d: %w", s.flags, s.count, s.start, ErrProtocol)
	}
	return s, nil
}

// access is one access to a region (spec, "VFIO_USER_REGION_READ" and
// "VFIO_USER_REGION_WRITE").
//
//	 0                         8            12          16
//	+-------------------------+------------+------------+
//	| offset                  | region     | count      | data...
//	+-------------------------+------------+------------+
type access struct {
	offset        uint64
	region, count uint32
}

func (a access) append(dst []byte) []byte {
	dst = order.AppendUint64(dst, a.offset)
	return appendWords(dst, a.region, a.count)
}

// parseAccess reads an access, and gives the data behind it.
func parseAccess(b []byte) (access, []byte, error) {
	if len(b) < accessSize {
		return access{}, nil, fmt.Errorf("region access: %w", ErrProtocol)
	}
	a := access{offset: order.Uint64(b), region: order.Uint32(b[8:]), count: order.Uint32(b[12:])}
	if a.count == 0 || a.count > MaxTransfer || a.offset+uint64(a.count) < a.offset {
		return access{}, nil, fmt.Errorf("region access of %d bytes at %#x: %w", a.count, a.offset, ErrProtocol)
	}
	return a, b[accessSize:], nil
}
