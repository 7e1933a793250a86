// SPDX-License-Identifier: Apache-2.0

package vfiouser

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		panic(err)
	}
	return b
}

// codec is one payload, made uniform for the tests.
type codec struct {
	name   string
	golden []byte // of a little-endian host
	value  any
	parse  func([]byte) (any, error)
	encode func(any) []byte
}

func codecOf[T interface{ append([]byte) []byte }](name, golden string, value T, parse func([]byte) (T, error)) codec {
	return codec{name, unhex(golden), value,
		func(b []byte) (any, error) { return parse(b) },
		func(v any) []byte { return v.(T).append(nil) },
	}
}

var codecs = []codec{
	codecOf("header", `0100 0a00 18000000 10000000 00000000`,
		header{id: 1, command: CmdRegionWrite, size: 24, flags: flagNoReply}, parseHeader),
	codecOf("DMA map", `20000000 03000000 0010000000000000 0000100000000000 0020000000000000`,
		DMAMap{Flags: DMARead | DMAWrite, Offset: 0x1000, Address: 0x100000, Size: 0x2000}, parseDMAMap),
	codecOf("DMA unmap", `18000000 00000000 0000100000000000 0020000000000000`,
		DMAUnmap{Address: 0x100000, Size: 0x2000}, parseDMAUnmap),
	codecOf("device info", `10000000 03000000 09000000 05000000`,
		DeviceInfo{Flags: DeviceResets | DevicePCI, Regions: PCIRegions, IRQs: PCIIRQs}, parseDeviceInfo),
	codecOf("region info", `20000000 03000000 07000000 00000000 0001000000000000 0000000000000000`,
		RegionInfo{Flags: RegionReadable | RegionWriteable, Index: RegionConfig, Size: 256}, parseRegionInfo),
	codecOf("IRQ info", `10000000 01000000 02000000 02000000`,
		IRQInfo{Flags: IRQEventFD, Index: IRQMSIX, Count: 2}, parseIRQInfo),
	codecOf("IRQ set", `14000000 24000000 02000000 00000000 01000000`,
		irqSet{flags: irqDataEventFD | irqActionTrigger, index: IRQMSIX, count: 1}, parseIRQSet),
	codecOf("access", `0020000000000000 00000000 04000000`,
		access{offset: 0x2000, count: 4}, func(b []byte) (access, error) {
			a, _, err := parseAccess(b)
			return a, err
		}),
	codecOf("version", `0000 0100`+hex.EncodeToString([]byte(`{"capabilities":{"max_msg_fds":16,"max_data_xfer_size":4096}}`))+`00`,
		version{minor: 1, maxFDs: 16, maxTransfer: 4096}, parseVersion),
}

func TestGolden(t *testing.T) {
	if order.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the golden bytes are those of a little-endian host")
	}
	for _, c := range codecs {
		if got := c.encode(c.value); !bytes.Equal(got, c.golden) {
			t.Errorf("%s: encoded\n%s\nwant\n%s", c.name, hex.Dump(got), hex.Dump(c.golden))
		}
		got, err := c.parse(c.golden)
		if err != nil || !reflect.DeepEqual(got, c.value) {
			t.Errorf("%s: parsed %+v, %v, want %+v", c.name, got, err, c.value)
		}
	}
}

// TestVersionOfQEMU: what QEMU 11.1.3 sends, and what a client may leave out.
func TestVersionOfQEMU(t *testing.T) {
	for _, tc := range []struct {
		name, data string
		want       version
		ok         bool
	}{
		{"QEMU", `{"capabilities":{"max_msg_fds":16,"max_data_xfer_size":1048576,"max_dma_maps":65535,"pgsizes":4096,"write_multiple":true}}` + "\x00",
			version{maxFDs: 16, maxTransfer: 1 << 20}, true},
		{"nothing", "", version{maxFDs: 1, maxTransfer: 1 << 20}, true},
		{"no capabilities", "{}\x00", version{maxFDs: 1, maxTransfer: 1 << 20}, true},
		{"no NUL", "{}", version{}, false},
		{"two NUL", "{}\x00\x00", version{}, false},
		{"no JSON", "hello\x00", version{}, false},
		{"no descriptors", `{"capabilities":{"max_msg_fds":0}}` + "\x00", version{}, false},
		{"not a number", `{"capabilities":{"max_msg_fds":"16"}}` + "\x00", version{}, false},
	} {
		got, err := parseVersion(append(make([]byte, versionSize), tc.data...))
		if got != tc.want || (err == nil) != tc.ok || err != nil && !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %+v, %v, want %+v, ok %t", tc.name, got, err, tc.want, tc.ok)
		}
	}
}

// FuzzParse: no input panics a parser, and what is taken means its encoding.
func FuzzParse(f *testing.F) {
	for i, c := range codecs {
		f.Add(uint8(i), c.golden)
		f.Add(uint8(i), []byte{})
	}
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		c := codecs[int(which)%len(codecs)]
		v, err := c.parse(b)
		if err != nil {
			if !errors.Is(err, ErrProtocol) {
				t.Errorf("%s: %v is not ErrProtocol", c.name, err)
			}
			return
		}
		again, err := c.parse(c.encode(v))
		if set, ok := v.(irqSet); ok && set.flags&irqDataBool != 0 && set.count > 0 {
			return // its data is not kept
		}
		if err != nil || !reflect.DeepEqual(again, v) {
			t.Errorf("%s: %x is %+v, and that encoded is %+v, %v", c.name, b, v, again, err)
		}
	})
}
