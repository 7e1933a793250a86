// SPDX-License-Identifier: Apache-2.0

package vfiouser

import "fmt"

// Sizes of fixed payloads, in bytes. Each begins with argsz, the size that the
// sender has room for or needs; it is kept by this package alone.
const (
	mapSize        = 32
	unmapSize      = 24
	deviceInfoSize = 16
	regionInfoSize = 32
	irqInfoSize    = 16
	irqSetSize     = 20
	accessSize     = 16
)

// Flags of a DMAMap.
const (
	DMARead  = 1 << 0
	DMAWrite = 1 << 1
)

// DMAMap gives a range of the client's memory to the server (spec,
// "VFIO_USER_DMA_MAP").
//
//	 0            4            8                       16
//	+------------+------------+------------------------+
//	| argsz      | flags      | offset in the file     |
//	+------------+------------+------------------------+
//	| address (IOVA)          | size                   | 16
//	+-------------------------+------------------------+
type DMAMap struct {
	Flags         uint32
	Offset        uint64
	Address, Size uint64
}

func (m DMAMap) append(dst []byte) []byte {
	dst = order.AppendUint32(dst, mapSize)
	dst = order.AppendUint32(dst, m.Flags)
	dst = order.AppendUint64(dst, m.Offset)
	dst = order.AppendUint64(dst, m.Address)
	return order.AppendUint64(dst, m.Size)
}

func parseDMAMap(b []byte) (DMAMap, error) {
	if len(b) != mapSize {
		return DMAMap{}, fmt.Errorf("DMA map: %w", ErrProtocol)
	}
	m := DMAMap{
		Flags:  order.Uint32(b[4:]),
		Offset: order.Uint64(b[8:]), Address: order.Uint64(b[16:]), Size: order.Uint64(b[24:]),
	}
	if m.Size == 0 || m.Address+m.Size-1 < m.Address || m.Flags&^(DMARead|DMAWrite) != 0 {
		return DMAMap{}, fmt.Errorf("DMA map of %#x bytes at %#x, flags %#x: %w", m.Size, m.Address, m.Flags, ErrProtocol)
	}
	return m, nil
}

// DMAUnmap takes a range back (spec, "VFIO_USER_DMA_UNMAP").
//
//	 0            4            8                       16
//	+------------+------------+------------------------+
//	| argsz      | flags, 0   | address (IOVA)         |
//	+------------+------------+------------------------+
//	| size                    | 16
//	+-------------------------+
type DMAUnmap struct {
	Address, Size uint64
}

func (m DMAUnmap) append(dst []byte) []byte {
	dst = order.AppendUint32(dst, unmapSize)
	dst = order.AppendUint32(dst, 0)
	dst = order.AppendUint64(dst, m.Address)
	return order.AppendUint64(dst, m.Size)
}

func parseDMAUnmap(b []byte) (DMAUnmap, error) {
	if len(b) != unmapSize || order.Uint32(b[4:]) != 0 {
		return DMAUnmap{}, fmt.Errorf("DMA unmap: %w", ErrProtocol)
	}
	m := DMAUnmap{Address: order.Uint64(b[8:]), Size: order.Uint64(b[16:])}
	if m.Size == 0 || m.Address+m.Size-1 < m.Address {
		return DMAUnmap{}, fmt.Errorf("DMA unmap of %#x bytes at %#x: %w", m.Size, m.Address, ErrProtocol)
	}
	return m, nil
}

// Flags of a DeviceInfo.
const (
	DeviceResets = 1 << 0
	DevicePCI    = 1 << 1
)

// DeviceInfo describes the device (spec, "VFIO_USER_DEVICE_GET_INFO").
//
//	 0            4            8            12          16
//	+------------+------------+------------+------------+
//	| argsz      | flags      | regions    | IRQ types  |
//	+------------+------------+------------+------------+
type DeviceInfo struct {
	Flags, Regions, IRQs uint32
}

func (i DeviceInfo) append(dst []byte) []byte {
	return appendWords(dst, deviceInfoSize, i.Flags, i.Regions, i.IRQs)
}

func parseDeviceInfo(b []byte) (DeviceInfo, error) {
	w, err := fixedWords[[4]uint32](b, deviceInfoSize, "device info")
	return DeviceInfo{Flags: w[1], Regions: w[2], IRQs: w[3]}, err
}

// Flags of a RegionInfo.
const (
	RegionReadable  = 1 << 0
	RegionWriteable = 1 << 1
)

// RegionInfo describes a region (spec, "VFIO_USER_DEVICE_GET_REGION_INFO").
//
//	 0            4            8            12          16
//	+------------+------------+------------+------------+
//	| argsz      | flags      | index      | caps, 0    |
//	+------------+------------+------------+------------+
//	| size                    | offset for mmap, 0      | 16
//	+-------------------------+-------------------------+
type RegionInfo struct {
	Flags, Index uint32
	Size         uint64
}

func (i RegionInfo) append(dst []byte) []byte {
	dst = appendWords(dst, regionInfoSize, i.Flags, i.Index, 0)
	return order.AppendUint64(order.AppendUint64(dst, i.Size), 0)
}

func parseRegionInfo(b []byte) (RegionInfo, error) {
	w, err := fixedWords[[8]uint32](b, regionInfoSize, "region info")
	if err != nil {
		return RegionInfo{}, err
	}
	return RegionInfo{Flags: w[1], Index: w[2], Size: order.Uint64(b[16:])}, nil
}

// IRQEventFD is the flag of an IRQInfo whose interrupts come by eventfd.
const IRQEventFD = 1 << 0

// IRQInfo describes a type of interrupt (spec, "VFIO_USER_DEVICE_GET_IRQ_INFO").
//
//	 0            4            8            12          16
//	+------------+------------+------------+------------+
//	| argsz      | flags      | index      | count      |
//	+------------+------------+------------+------------+
type IRQInfo struct {
	Flags, Index, Count uint32
}

func (i IRQInfo) append(dst []byte) []byte {
	return appendWords(dst, irqInfoSize, i.Flags, i.Index, i.Count)
}

func parseIRQInfo(b []byte) (IRQInfo, error) {
	w, err := fixedWords[[4]uint32](b, irqInfoSize, "IRQ info")
	return IRQInfo{Flags: w[1], Index: w[2], Count: w[3]}, err
}

func appendWords(dst []byte, words ...uint32) []byte {
	for _, w := range words {
		dst = order.AppendUint32(dst, w)
	}
	return dst
}

// fixedWords reads a payload of words whose first, argsz, has room for it all.
func fixedWords[T [4]uint32 | [8]uint32](b []byte, size int, what string) (w T, err error) {
	if len(b) != size || order.Uint32(b) < uint32(size) {
		return w, fmt.Errorf("%s: %w", what, ErrProtocol)
	}
	for i := range len(w) {
		w[i] = order.Uint32(b[4*i:])
	}
	return w, nil
}
