// SPDX-License-Identifier: Apache-2.0

package board

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/abi/vfiouser"
)

// TestWildConfig: whatever is written to configuration space, at any offset and of any
// width, what is not the host's stays as it is.
func TestWildConfig(t *testing.T) {
	h := newHost(t)
	fresh := newConfigSpace(ExperimentalIDs)
	for width := 1; width <= 9; width++ {
		for _, v := range []byte{0xff, 0x00, 0x5a} {
			for off := 0; off+width <= configSize; off++ {
				h.must(h.c.Write(vfiouser.RegionConfig, uint64(off), bytes.Repeat([]byte{v}, width)))
			}
			got := make([]byte, configSize)
			h.must(h.c.Read(vfiouser.RegionConfig, 0, got))
			for i, b := range got {
				if keep := ^fresh.mask[i]; b&keep != fresh.data[i]&keep {
					t.Fatalf("%#x written in pieces of %d: byte %#x is %#x, want %#x in %#x", v, width, i, b, fresh.data[i], keep)
				}
			}
		}
		if err := h.c.Write(vfiouser.RegionConfig, uint64(configSize-width+1), make([]byte, width)); !errors.Is(err, unix.EINVAL) {
			t.Errorf("%d bytes over the end: %v, want EINVAL", width, err)
		}
	}
}

// TestRegisterAccess: registers are written by aligned words, one or two at once, and
// read in any way.
func TestRegisterAccess(t *testing.T) {
	h := newHost(t)
	write := func(off uint64, b []byte) { h.must(h.c.Write(vfiouser.RegionBAR0, off, b)) }
	want := binary.LittleEndian.AppendUint64(nil, 0x1122334455667000)
	write(abi.RegAdminSQ, want)
	for _, n := range []int{1, 2, 3, 5, 6, 7, 12, 16, vfiouser.MaxTransfer} {
		write(abi.RegAdminSQ, bytes.Repeat([]byte{0xee}, n))
	}
	for off := uint64(1); off < 4; off++ {
		write(abi.RegAdminSQ+off, []byte{0xee, 0xee, 0xee, 0xee})
	}
	for off := range len(want) {
		for n := 1; off+n <= len(want); n++ {
			got := make([]byte, n)
			h.must(h.c.Read(vfiouser.RegionBAR0, abi.RegAdminSQ+uint64(off), got))
			if !bytes.Equal(got, want[off:off+n]) {
				t.Errorf("%d bytes at %d of the register are %x, want %x", n, off, got, want[off:off+n])
			}
		}
	}
	// The MSI-X table is memory, with nothing before and behind it.
	end := uint64(abi.BarMSIXTable + vectors*msixEntrySize)
	for off := uint64(abi.BarMSIXTable - 4); off < end+4; off += 4 {
		write(off, []byte{1, 2, 3, 4})
	}
	for _, edge := range []uint64{abi.BarMSIXTable, end} {
		got := make([]byte, 8)
		h.must(h.c.Read(vfiouser.RegionBAR0, edge-4, got))
		want := []byte{0, 0, 0, 0, 1, 2, 3, 4}
		if edge == end {
			want = []byte{1, 2, 3, 4, 0, 0, 0, 0}
		}
		if !bytes.Equal(got, want) {
			t.Errorf("bytes around %#x are %x, want %x", edge, got, want)
		}
	}
	if err := h.c.Read(vfiouser.RegionBAR0, abi.BarSize(slots)-2, make([]byte, 4)); !errors.Is(err, unix.EINVAL) {
		t.Errorf("read over the end: %v, want EINVAL", err)
	}
}

// TestMapFlood: a client can map only so much, and all of it goes at once.
func TestMapFlood(t *testing.T) {
	h := newHost(t)
	at := func(i int) vfiouser.DMAMap {
		return vfiouser.DMAMap{Flags: 3, Address: 1<<32 + uint64(i)*abi.PageSize, Size: abi.PageSize}
	}
	for i := range maxRanges - 1 { // one is there
		h.must(h.c.MapDMA(at(i), h.fd))
	}
	if err := h.c.MapDMA(at(maxRanges), h.fd); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("one range more than there can be: %v, want ENOSPC", err)
	}
	h.must(h.c.UnmapDMA(1<<32, 1<<32))
	h.must(h.c.MapDMA(at(0), h.fd))
	h.enable()
	h.openSlot(0)
}

// TestServe: clients come one after the other, and each finds the card as after
// power-up. Who connects and says nothing keeps nobody away.
func TestServe(t *testing.T) {
	f := newFake(t)
	defer f.sessions.Wait()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dial := func() *net.UnixConn {
		c, err := net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- New(Config{Open: f.session}).Serve(ctx, l) }()
	dial()
	sq := make([]byte, 4)
	for range 3 {
		c, err := vfiouser.NewClient(dial(), hang, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Read(vfiouser.RegionBAR0, abi.RegAdminSQ, sq); err != nil || sq[1] != 0 {
			t.Errorf("register = %x, %v, want zero", sq, err)
		}
		if err := c.Write(vfiouser.RegionBAR0, abi.RegAdminSQ, []byte{0, 0x10, 0, 0}); err != nil {
			t.Error(err)
		}
		c.Close()
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Serve after the end of its context: %v", err)
	}
}
