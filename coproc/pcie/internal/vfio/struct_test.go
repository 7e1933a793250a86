// SPDX-License-Identifier: Apache-2.0

package vfio

import (
	"bytes"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"
)

// TestStructures holds structures against what a C compiler makes of
// linux/vfio.h and linux/iommufd.h on amd64.
func TestStructures(t *testing.T) {
	for _, tc := range []struct {
		name string
		got  []byte
		want string
	}{
		{"device info", info(), "14000000 00000000 00000000 00000000 00000000"},
		{"region info", regionInfo(7, regionInfoSize), "20000000 00000000 07000000 00000000 0000000000000000 0000000000000000"},
		{"IRQ info", irqInfo(2), "10000000 00000000 02000000 00000000"},
		{"IRQ set", irqSet(2, []int{5, -1}), "1c000000 24000000 02000000 00000000 02000000 05000000 ffffffff"},
		{"DMA map", dmaMap(0x7f0000001000, 0x100000, 0x8000),
			"20000000 03000000 00100000007f0000 0000100000000000 0080000000000000"},
		{"DMA unmap", dmaUnmap(0x100000, 0x8000), "18000000 00000000 0000100000000000 0080000000000000"},
		{"IOAS map", ioasMap(9, 0x7f0000001000, 0x100000, 0x8000),
			"28000000 07000000 09000000 00000000 00100000007f0000 0080000000000000 0000100000000000"},
		{"IOAS unmap", ioasUnmap(9, 0x100000, 0x8000), "18000000 09000000 0000100000000000 0080000000000000"},
	} {
		want, err := hex.DecodeString(strings.ReplaceAll(tc.want, " ", ""))
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		if !bytes.Equal(tc.got, want) {
			t.Errorf("%s = %x, want %x", tc.name, tc.got, want)
		}
	}
}

// region gives the kernel's description of a region of 16 KiB.
func region(flags uint32, capability uint32, rest ...uint32) []byte {
	size := uint32(regionInfoSize + 4*len(rest))
	return append(words(size, flags, 0, capability, 0x4000, 0, 0, 0x10), words(rest...)...)
}

func TestParseRegion(t *testing.T) {
	const can, caps = regionFlagMmap, regionFlagMmap | regionFlagCaps
	whole := []area{{0, 0x4000}}
	sparse := []uint32{1<<16 | capSparseMmap, 0, 2, 0, 0, 0, 0x1000, 0, 0x2000, 0, 0x2000, 0}
	for _, tc := range []struct {
		name string
		b    []byte
		want []area
		ok   bool
	}{
		{"not to be mapped", region(3, 0), nil, true},
		{"mapped", region(can, 0), whole, true},
		{"no capability", region(caps, 0), whole, true},
		{"another capability", region(caps, 32, 3, 0), whole, true},
		{"sparse", region(caps, 32, sparse...), []area{{0, 0x1000}, {0x2000, 0x2000}}, true},
		{"sparse behind another", region(caps, 32, append([]uint32{3, 40}, sparse...)...), []area{{0, 0x1000}, {0x2000, 0x2000}}, true},
		{"sparse without areas", region(caps, 32, 1<<16|capSparseMmap, 0, 0, 0), nil, true},
		{"more areas than there are", region(caps, 32, 1<<16|capSparseMmap, 0, 1<<30, 0), nil, false},
		{"area outside", region(caps, 32, 1<<16|capSparseMmap, 0, 1, 0, 0x3000, 0, 0x1001, 0), nil, false},
		{"area that wraps", region(caps, 32, 1<<16|capSparseMmap, 0, 1, 0, 0x1000, 0, 0xffffffff, 0xffffffff), nil, false},
		{"capability outside", region(caps, 36, 3), nil, false},
		{"capability far outside", region(caps, 0xfffffffc), nil, false},
		{"capabilities in a circle", region(caps, 32, 3, 32), nil, false},
		{"cut off in the header", region(caps, 32, capSparseMmap, 0), nil, false},
	} {
		r, err := parseRegion(tc.b)
		if (err == nil) != tc.ok || err != nil && !errors.Is(err, errMalformed) {
			t.Errorf("%s: %v, want success %t", tc.name, err, tc.ok)
		}
		if tc.ok && (r.Size != 0x4000 || r.Offset != 0x10<<32 || !slices.Equal(r.areas, tc.want)) {
			t.Errorf("%s = %+v, want areas %+v", tc.name, r, tc.want)
		}
	}
}

// FuzzParseRegion: areas are inside of the region, whatever the bytes.
func FuzzParseRegion(f *testing.F) {
	f.Add(region(regionFlagMmap|regionFlagCaps, 32, 1<<16|capSparseMmap, 0, 1, 0, 0x1000, 0, 0x1000, 0))
	f.Add(region(regionFlagMmap|regionFlagCaps, 32, 3, 40, 3, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < regionInfoSize {
			return
		}
		r, err := parseRegion(b)
		if err != nil {
			return
		}
		for _, a := range r.areas {
			if a.offset > r.Size || a.size > r.Size-a.offset || a.size == 0 {
				t.Errorf("area %+v of %+v", a, r)
			}
		}
	})
}
