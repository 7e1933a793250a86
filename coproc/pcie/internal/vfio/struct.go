// SPDX-License-Identifier: Apache-2.0

package vfio

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Requests (_IO(';', 100 + n) for VFIO, _IO(';', 0x80 + n) for iommufd).
const (
	reqGetAPIVersion     = 0x3b64
	reqCheckExtension    = 0x3b65
	reqSetIOMMU          = 0x3b66
	reqGroupGetStatus    = 0x3b67
	reqGroupSetContainer = 0x3b68
	reqGroupGetDeviceFD  = 0x3b6a
	reqDeviceGetInfo     = 0x3b6b
	reqDeviceRegionInfo  = 0x3b6c
	reqDeviceIRQInfo     = 0x3b6d
	reqDeviceSetIRQs     = 0x3b6e
	reqDeviceReset       = 0x3b6f
	reqMapDMA            = 0x3b71
	reqUnmapDMA          = 0x3b72
	reqDeviceBindIOMMUFD = 0x3b76
	reqDeviceAttachPT    = 0x3b77

	reqIOASAlloc = 0x3b81
	reqIOASMap   = 0x3b85
	reqIOASUnmap = 0x3b86
)

const (
	apiVersion = 0
	type1v2    = 3 // VFIO_TYPE1v2_IOMMU

	groupViable = 1 << 0

	infoReset = 1 << 0
	infoPCI   = 1 << 1

	regionFlagMmap = 1 << 2
	regionFlagCaps = 1 << 3
	capSparseMmap  = 1

	irqInfoEventFD       = 1 << 0
	irqSetDataEventFD    = 1 << 2
	irqSetActionTrigger  = 1 << 5
	dmaRead, dmaWrite    = 1 << 0, 1 << 1
	ioasFixed            = 1 << 0
	ioasWrite, ioasRead  = 1 << 1, 1 << 2
	deviceInfoSize       = 20
	regionInfoSize       = 32
	maxRegionInfoSize    = 64 << 10
	irqInfoSize          = 16
	bindIOMMUFDSize      = 16
	sparseHeaderSize     = 16
	sparseAreaSize       = 16
	capabilityHeaderSize = 8
)

// Regions and interrupts of a PCI function, by index.
const (
	RegionBAR0   = 0
	RegionConfig = 7

	IRQMSIX    = 2
	IRQError   = 3 // an uncorrectable error of the function
	IRQRequest = 4 // the kernel asks for the function back
)

var (
	order        = binary.NativeEndian
	errMalformed = errors.New("kernel's answer is malformed")
)

// words puts 32-bit words one after the other: most structures are that, with
// their own size (argsz) as the first. 64-bit values are two of them.
func words(w ...uint32) []byte {
	b := make([]byte, 0, 4*len(w))
	for _, v := range w {
		b = order.AppendUint32(b, v)
	}
	return b
}

func word(b []byte, i int) uint32 { return order.Uint32(b[4*i:]) }

// info is struct vfio_device_info.
//
//	+-------+-------+-------------+----------+------------+
//	| argsz | flags | num_regions | num_irqs | cap_offset |
//	+-------+-------+-------------+----------+------------+
//	0       4       8             12         16           20
func info() []byte { return words(deviceInfoSize, 0, 0, 0, 0) }

// regionInfo is struct vfio_region_info, with size bytes in all.
//
//	+-------+-------+-------+------------+------+--------+-- -  -
//	| argsz | flags | index | cap_offset | size | offset | capabilities
//	+-------+-------+-------+------------+------+--------+-- -  -
//	0       4       8       12           16     24       32
func regionInfo(index uint32, size int) []byte {
	return append(words(uint32(size), 0, index, 0), make([]byte, size-16)...)
}

// Region is a region of a function, at Offset of the device's file.
type Region struct {
	Size, Offset uint64
	areas        []area // what can be mapped
}

// area is a part of a region.
type area struct{ offset, size uint64 }

// parseRegion parses a struct vfio_region_info. Without the capability for
// sparse mappings (struct vfio_region_info_cap_sparse_mmap) all of a region
// that can be mapped can be.
func parseRegion(b []byte) (Region, error) {
	r := Region{Size: order.Uint64(b[16:]), Offset: order.Uint64(b[24:])}
	flags := word(b, 1)
	if flags&regionFlagMmap == 0 || r.Size == 0 {
		return r, nil
	}
	if flags&regionFlagCaps != 0 {
		for at := word(b, 3); at != 0; {
			if uint64(at)+capabilityHeaderSize > uint64(len(b)) {
				return r, fmt.Errorf("region capability at %#x: %w", at, errMalformed)
			}
			next := order.Uint32(b[at+4:])
			if order.Uint16(b[at:]) == capSparseMmap {
				return r, r.parseSparse(b[at:])
			}
			if next != 0 && next <= at {
				return r, fmt.Errorf("region capabilities go back from %#x to %#x: %w", at, next, errMalformed)
			}
			at = next
		}
	}
	r.areas = []area{{0, r.Size}}
	return r, nil
}

// parseSparse parses the capability for sparse mappings.
//
//	+----+---------+------+----------+----------+--------+------+-- -  -
//	| id | version | next | nr_areas | reserved | offset | size | ...
//	+----+---------+------+----------+----------+--------+------+-- -  -
//	0    2         4      8          12         16       24     32
func (r *Region) parseSparse(b []byte) error {
	if len(b) < sparseHeaderSize || uint64(word(b, 2)) > uint64(len(b)-sparseHeaderSize)/sparseAreaSize {
		return fmt.Errorf("sparse areas: %w", errMalformed)
	}
	for i := range int(word(b, 2)) {
		a := b[sparseHeaderSize+i*sparseAreaSize:]
		off, size := order.Uint64(a), order.Uint64(a[8:])
		if off > r.Size || size > r.Size-off {
			return fmt.Errorf("sparse area of %#x bytes at %#x: %w", size, off, errMalformed)
		}
		if size > 0 {
			r.areas = append(r.areas, area{off, size})
		}
	}
	return nil
}

// irqInfo is struct vfio_irq_info.
//
//	+-------+-------+-------+-------+
//	| argsz | flags | index | count |
//	+-------+-------+-------+-------+
//	0       4       8       12      16
func irqInfo(index uint32) []byte { return words(irqInfoSize, 0, index, 0) }

// irqSet is struct vfio_irq_set with eventfds, which get the interrupts from
// the first on.
//
//	+-------+-------+-------+-------+-------+----+-- -  -
//	| argsz | flags | index | start | count | fd | ...
//	+-------+-------+-------+-------+-------+----+-- -  -
//	0       4       8       12      16      20
func irqSet(index uint32, eventFDs []int) []byte {
	b := words(uint32(20+4*len(eventFDs)), irqSetDataEventFD|irqSetActionTrigger, index, 0, uint32(len(eventFDs)))
	for _, fd := range eventFDs {
		b = order.AppendUint32(b, uint32(int32(fd)))
	}
	return b
}

// dmaMap is struct vfio_iommu_type1_dma_map, dmaUnmap its counterpart.
//
//	+-------+-------+-------+------+------+   +-------+-------+------+------+
//	| argsz | flags | vaddr | iova | size |   | argsz | flags | iova | size |
//	+-------+-------+-------+------+------+   +-------+-------+------+------+
//	0       4       8       16     24     32  0       4       8      16     24
func dmaMap(vaddr, iova, size uint64) []byte {
	return append64(words(32, dmaRead|dmaWrite), vaddr, iova, size)
}

func dmaUnmap(iova, size uint64) []byte {
	return append64(words(24, 0), iova, size)
}

// ioasMap is struct iommu_ioas_map, ioasUnmap is struct iommu_ioas_unmap.
//
//	+------+-------+------+----------+---------+--------+------+
//	| size | flags | ioas | reserved | user_va | length | iova |
//	+------+-------+------+----------+---------+--------+------+
//	0      4       8      12         16        24       32     40
//	+------+------+------+--------+
//	| size | ioas | iova | length |
//	+------+------+------+--------+
//	0      4      8      16       24
func ioasMap(ioas uint32, vaddr, iova, size uint64) []byte {
	return append64(words(40, ioasFixed|ioasWrite|ioasRead, ioas, 0), vaddr, size, iova)
}

func ioasUnmap(ioas uint32, iova, size uint64) []byte {
	return append64(words(24, ioas), iova, size)
}

func append64(b []byte, values ...uint64) []byte {
	for _, v := range values {
		b = order.AppendUint64(b, v)
	}
	return b
}
