// SPDX-License-Identifier: Apache-2.0

package vfio

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

const page = 4096

// newBAR gives a BAR of 4 pages that is really a file, where it begins at the
// second page. Its second page cannot be mapped.
func newBAR(t *testing.T) (*BAR, *os.File) {
	t.Helper()
	fd, err := unix.MemfdCreate("bar", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "bar")
	t.Cleanup(func() { file.Close() })
	if err := file.Truncate(5 * page); err != nil {
		t.Fatal(err)
	}
	b := &BAR{Region: Region{Size: 4 * page, Offset: page}, dev: &Device{fd: fd}}
	for _, a := range []area{{0, page}, {2 * page, 2 * page}} {
		mem, err := unix.Mmap(fd, int64(b.Offset+a.offset), int(a.size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			t.Fatal(err)
		}
		b.windows = append(b.windows, window{a.offset, mem})
	}
	t.Cleanup(b.Close)
	return b, file
}

// TestBAR: each word is where it belongs, through a window and beside one.
func TestBAR(t *testing.T) {
	b, file := newBAR(t)
	for _, off := range []uint64{0, 4, page - 4, page, page + 8, 2*page - 4, 2 * page, 4*page - 4} {
		value := 0x01020304 + uint32(off)
		if err := b.Store(off, value); err != nil {
			t.Fatalf("Store(%#x): %v", off, err)
		}
		got := make([]byte, 4)
		if _, err := file.ReadAt(got, int64(page+off)); err != nil {
			t.Fatal(err)
		}
		if want := binary.LittleEndian.AppendUint32(nil, value); !bytes.Equal(got, want) {
			t.Errorf("Store(%#x) left %x, want %x", off, got, want)
		}
		if v, err := b.Load(off); v != value || err != nil {
			t.Errorf("Load(%#x) = %#x, %v, want %#x", off, v, err, value)
		}
	}
}

func TestBARBounds(t *testing.T) {
	b, _ := newBAR(t)
	for _, off := range []uint64{1, 2, 3, page - 2, 4*page - 3, 4 * page, 1 << 40, ^uint64(0), ^uint64(3)} {
		if v, err := b.Load(off); err == nil {
			t.Errorf("Load(%#x) = %#x, want an error", off, v)
		}
		if err := b.Store(off, 1); err == nil {
			t.Errorf("Store(%#x) succeeded", off)
		}
	}
}

// TestBARThatTakesNoAccess: SIGBUS is an error.
func TestBARThatTakesNoAccess(t *testing.T) {
	b, file := newBAR(t)
	if err := file.Truncate(0); err != nil {
		t.Fatal(err)
	}
	for _, off := range []uint64{0, page, 2 * page} {
		if v, err := b.Load(off); err == nil {
			t.Errorf("Load(%#x) = %#x, want an error", off, v)
		}
	}
	if err := b.Store(0, 1); err == nil {
		t.Error("Store succeeded")
	}
}
