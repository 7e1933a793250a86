// SPDX-License-Identifier: Apache-2.0

package virtqueue_test

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"hwvtpm/virtqueue"
)

func TestNewMemoryRefusesBadTables(t *testing.T) {
	b := func(n int) []byte { return make([]byte, n) }
	for _, tt := range []struct {
		name    string
		regions []virtqueue.Region
		want    error
	}{
		{"none", nil, nil},
		{"touching", []virtqueue.Region{{0x2000, 0x9000, b(0x1000)}, {0x1000, 0x8000, b(0x1000)}}, nil},
		{"swapped orders", []virtqueue.Region{{0, 0x8000, b(0x1000)}, {0x1000, 0, b(0x1000)}}, nil},
		{"empty", []virtqueue.Region{{0, 0, nil}}, virtqueue.ErrRegions},
		{"gpa overlap", []virtqueue.Region{{0, 0, b(0x1000)}, {0xfff, 0x10000, b(1)}}, virtqueue.ErrRegions},
		{"user overlap", []virtqueue.Region{{0, 0, b(0x1000)}, {0x10000, 0xfff, b(1)}}, virtqueue.ErrRegions},
		{"the same twice", []virtqueue.Region{{0, 0, b(1)}, {0, 0, b(1)}}, virtqueue.ErrRegions},
		{"gpa wraps", []virtqueue.Region{{math.MaxUint64 - 0xffe, 0, b(0x1000)}}, virtqueue.ErrRegions},
		{"user wraps", []virtqueue.Region{{0, math.MaxUint64 - 0xffe, b(0x1000)}}, virtqueue.ErrRegions},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := virtqueue.NewMemory(tt.regions); !errors.Is(err, tt.want) {
				t.Errorf("NewMemory = %v, want %v", err, tt.want)
			}
		})
	}
}

func TestMemoryTranslates(t *testing.T) {
	a, b := pattern(1, 0x1000), pattern(2, 0x1000)
	mem, err := virtqueue.NewMemory([]virtqueue.Region{{0x2000, 0x70000, b}, {0x1000, 0x90000, a}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		view    func(addr, n uint64) ([]byte, error)
		addr, n uint64
		want    []byte
		err     error
	}{
		{"whole region", mem.Guest, 0x1000, 0x1000, a, nil},
		{"second region", mem.Guest, 0x2000, 4, b[:4], nil},
		{"last byte", mem.Guest, 0x2fff, 1, b[0xfff:], nil},
		{"nothing, inside", mem.Guest, 0x1800, 0, nil, nil},
		{"below all", mem.Guest, 0xfff, 1, nil, virtqueue.ErrNoRegion},
		{"above all", mem.Guest, 0x3000, 1, nil, virtqueue.ErrNoRegion},
		{"nothing, outside", mem.Guest, 0x3000, 0, nil, virtqueue.ErrNoRegion},
		{"into the next region", mem.Guest, 0x1fff, 2, nil, virtqueue.ErrCrossRegion},
		{"past the last region", mem.Guest, 0x2fff, 2, nil, virtqueue.ErrCrossRegion},
		{"length wraps", mem.Guest, 0x1800, math.MaxUint64, nil, virtqueue.ErrCrossRegion},
		{"address wraps", mem.Guest, math.MaxUint64, 2, nil, virtqueue.ErrNoRegion},
		{"user, first", mem.User, 0x70010, 2, b[0x10:0x12], nil},
		{"user, second", mem.User, 0x90fff, 1, a[0xfff:], nil},
		{"user, crossing", mem.User, 0x70fff, 2, nil, virtqueue.ErrCrossRegion},
		{"a gpa is no user address", mem.User, 0x1000, 1, nil, virtqueue.ErrNoRegion},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.view(tt.addr, tt.n)
			if !errors.Is(err, tt.err) || !bytes.Equal(got, tt.want) {
				t.Fatalf("= %d bytes, %v, want %d bytes, %v", len(got), err, len(tt.want), tt.err)
			}
			if len(got) > 0 && (&got[0] != &tt.want[0] || cap(got) != len(got)) {
				t.Error("not the shared bytes, or with room behind them")
			}
		})
	}
}

func TestUserToGuest(t *testing.T) {
	mem, err := virtqueue.NewMemory([]virtqueue.Region{{0x2000, 0x70000, make([]byte, 0x1000)}})
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[uint64]uint64{0x70000: 0x2000, 0x70fff: 0x2fff} {
		if got, ok := mem.UserToGuest(addr); !ok || got != want {
			t.Errorf("UserToGuest(%#x) = %#x, %v, want %#x", addr, got, ok, want)
		}
	}
	for _, addr := range []uint64{0x6ffff, 0x71000, 0, 0x2000, math.MaxUint64} {
		if got, ok := mem.UserToGuest(addr); ok {
			t.Errorf("UserToGuest(%#x) = %#x, want none", addr, got)
		}
	}
}
