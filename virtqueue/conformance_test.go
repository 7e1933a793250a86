// SPDX-License-Identifier: Apache-2.0

package virtqueue_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"hwvtpm/virtqueue"
	"hwvtpm/virtqueue/queuetest"
)

// shapes are chains a driver may legally build.
var shapes = []struct {
	name     string
	readable []int
	writable []int
}{
	{"one readable", []int{10}, nil},
	{"one writable", nil, []int{10}},
	{"one of each", []int{100}, []int{200}},
	{"many small", []int{1, 2, 3, 4}, []int{5, 6, 7, 8}},
	{"larger than a page", []int{5000, 1}, []int{1, 9000}},
	{"zero lengths among others", []int{0, 7, 0}, []int{0, 9, 0}},
	{"only zero lengths", []int{0}, []int{0}},
	{"as long as the queue", []int{1, 1, 1, 1}, []int{1, 1, 1, 1}},
}

// "The device MUST NOT make assumptions about the particular arrangement of
// descriptors" (VIRTIO 1.3 2.7.4.1): both parts are byte streams.
func TestChainIsTwoByteStreams(t *testing.T) {
	forEachFormat(t, 8, func(t *testing.T, o queuetest.Options) {
		for _, shape := range shapes {
			t.Run(shape.name, func(t *testing.T) { roundTrip(t, o, shape.readable, shape.writable) })
		}
	})
}

func roundTrip(t *testing.T, o queuetest.Options, readable, writable []int) {
	d, q := pair(t, o)
	var c virtqueue.Chain
	for lap := range 40 { // several laps of the ring
		var parts [][]byte
		for i, n := range readable {
			parts = append(parts, pattern(lap+i, n))
		}
		tok := add(t, d, parts, writable, o.Indirect)
		pop(t, q, &c)
		request := bytes.Join(parts, nil)
		if got := readAll(t, d, &c); !bytes.Equal(got, request) {
			t.Fatalf("lap %d: read %.40x, want %.40x", lap, got, request)
		}
		reply := pattern(lap+100, int(c.Writable()))
		write(t, q, &c, reply)
		push(t, q, &c, uint32(len(reply)))
		wantPoll(t, d, tok, reply)
		popNothing(t, q)
	}
}

func TestReadAtOffsets(t *testing.T) {
	forEachFormat(t, 8, func(t *testing.T, o queuetest.Options) {
		d, q := pair(t, o)
		want := pattern(1, 60)
		add(t, d, [][]byte{want[:10], want[10:11], want[11:40], want[40:]}, nil, o.Indirect)
		var c virtqueue.Chain
		pop(t, q, &c)
		for off := 0; off <= 70; off++ {
			for n := 0; n <= 70; n += 7 {
				dst := make([]byte, n)
				got, err := c.ReadAt(d.Memory(), dst, uint32(off))
				from, to := min(off, 60), min(off+n, 60)
				if err != nil || !bytes.Equal(dst[:got], want[from:to]) {
					t.Fatalf("ReadAt(%d bytes, off %d) = %d, %v: %x, want %x", n, off, got, err, dst[:got], want[from:to])
				}
			}
		}
	})
}

func TestWriteAtOffsets(t *testing.T) {
	forEachFormat(t, 8, func(t *testing.T, o queuetest.Options) {
		d, q := pair(t, o)
		tok := add(t, d, [][]byte{{1}}, []int{3, 0, 20, 5}, o.Indirect)
		var c virtqueue.Chain
		pop(t, q, &c)
		want := pattern(5, 28)
		for _, cut := range [][2]int{{20, 28}, {0, 2}, {2, 20}} { // any order
			if n, err := c.WriteAt(q, want[cut[0]:cut[1]], uint32(cut[0])); err != nil || n != cut[1]-cut[0] {
				t.Fatalf("WriteAt(%v) = %d, %v", cut, n, err)
			}
		}
		if n, err := c.WriteAt(q, make([]byte, 4), 26); n != 2 || !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("WriteAt past the end = %d, %v, want 2, io.ErrShortWrite", n, err)
		}
		copy(want[26:], []byte{0, 0})
		push(t, q, &c, 28)
		wantPoll(t, d, tok, want)
	})
}

// "The device MUST start writing device descriptors into the ring in the order
// in which they complete" (2.8.12): completion order is the device's business.
func TestPushInAnyOrder(t *testing.T) {
	forEachFormat(t, 8, func(t *testing.T, o queuetest.Options) {
		d, q := pair(t, nearWrap(o))
		for lap := range 20 {
			var chains [4]virtqueue.Chain
			var toks [4]queuetest.Token
			for i := range chains {
				toks[i] = add(t, d, [][]byte{pattern(i, 4)}, []int{4}, o.Indirect)
				pop(t, q, &chains[i])
			}
			for _, i := range []int{2, 0, 3, 1} {
				reply := pattern(lap+i, 4)
				write(t, q, &chains[i], reply)
				push(t, q, &chains[i], 4)
				wantPoll(t, d, toks[i], reply)
			}
		}
	})
}

// A full ring: Queue Size chains in flight at once, and not one more.
func TestQueueSizeChainsInFlight(t *testing.T) {
	forEachFormat(t, 4, func(t *testing.T, o queuetest.Options) {
		d, q := pair(t, nearWrap(o))
		for range 5 {
			chains := make([]virtqueue.Chain, 4)
			toks := make([]queuetest.Token, 4)
			for i := range chains {
				toks[i] = add(t, d, nil, []int{1}, false)
			}
			for i := range chains {
				pop(t, q, &chains[i])
			}
			popNothing(t, q)
			for i := range chains {
				push(t, q, &chains[i], 0)
			}
			for i := range chains {
				wantPoll(t, d, toks[i], nil)
			}
		}
	})
}

// "The device MUST handle the case of zero or more normal chained descriptors
// followed by a single descriptor with flags&VIRTQ_DESC_F_INDIRECT" and "MUST
// ignore the write-only flag in the descriptor that refers to an indirect
// table" (2.7.5.3.2).
func TestSplitDirectThenIndirect(t *testing.T) {
	d, q := pair(t, queuetest.Options{Size: 8, Indirect: true})
	buf := d.Alloc(64)
	copy(d.Bytes()[buf:], "abcdefgh")
	table := d.PutTable(
		queuetest.Desc{Addr: d.GPA(buf + 4), Len: 4, Flags: queuetest.FlagNext, Link: 2},
		queuetest.Desc{Addr: 1, Len: 1}, // not reached
		queuetest.Desc{Addr: d.GPA(buf + 32), Len: 5, Flags: queuetest.FlagWrite},
	)
	d.Offer(
		queuetest.Desc{Addr: d.GPA(buf), Len: 4, Flags: queuetest.FlagNext, Link: 1},
		queuetest.Desc{Addr: table, Len: 48, Flags: queuetest.FlagIndirect | queuetest.FlagWrite},
	)
	var c virtqueue.Chain
	pop(t, q, &c)
	if got := readAll(t, d, &c); string(got) != "abcdefgh" || c.Writable() != 5 {
		t.Errorf("read %q with %d writable, want abcdefgh with 5", got, c.Writable())
	}
}

// In a packed indirect table flags other than WRITE, and the ids, "are reserved
// and are ignored by the device"; the table's length alone counts (2.8.7).
func TestPackedTableIgnoresReservedFields(t *testing.T) {
	d, q := pair(t, queuetest.Options{Size: 4, Packed: true, Indirect: true})
	buf := d.Alloc(64)
	table := d.PutTable(
		queuetest.Desc{Addr: d.GPA(buf), Len: 4, Flags: queuetest.FlagIndirect, Link: 7},
		queuetest.Desc{Addr: d.GPA(buf), Len: 4, Flags: queuetest.FlagNext | queuetest.FlagAvail, Link: 9},
		queuetest.Desc{Addr: d.GPA(buf), Len: 4, Flags: queuetest.FlagWrite | queuetest.FlagNext, Link: 9},
	)
	d.Offer(queuetest.Desc{Addr: table, Len: 48, Flags: queuetest.FlagIndirect, Link: 3})
	var c virtqueue.Chain
	pop(t, q, &c)
	if c.Readable() != 8 || c.Writable() != 4 || c.Head() != 3 {
		t.Errorf("chain of %d readable, %d writable, id %d, want 8, 4, 3", c.Readable(), c.Writable(), c.Head())
	}
}

// "Buffer ID is included in the last descriptor in the list" (2.8.6), and its
// value is the driver's own affair.
func TestPackedIDComesFromLastDescriptor(t *testing.T) {
	d, q := pair(t, queuetest.Options{Size: 4, Packed: true})
	buf := d.GPA(d.Alloc(64))
	d.Offer(
		queuetest.Desc{Addr: buf, Len: 1, Flags: queuetest.FlagNext, Link: 11},
		queuetest.Desc{Addr: buf, Len: 1, Flags: queuetest.FlagNext, Link: 12},
		queuetest.Desc{Addr: buf, Len: 1, Flags: queuetest.FlagWrite, Link: 0xfff3},
	)
	var c virtqueue.Chain
	pop(t, q, &c)
	push(t, q, &c, 1)
	used := d.Desc(0)
	want := queuetest.Desc{Addr: buf, Len: 1, Link: 0xfff3,
		Flags: queuetest.FlagAvail | queuetest.FlagUsed | queuetest.FlagWrite}
	if used != want {
		t.Errorf("used descriptor %+v, want %+v", used, want)
	}
}

// 2.8.3: the WRITE flag of a used descriptor says whether any data was written.
func TestPackedUsedWithoutDataHasNoWriteFlag(t *testing.T) {
	d, q := pair(t, queuetest.Options{Size: 4, Packed: true})
	add(t, d, nil, []int{8}, false)
	var c virtqueue.Chain
	pop(t, q, &c)
	push(t, q, &c, 0)
	if flags := d.Desc(0).Flags; flags != queuetest.FlagAvail|queuetest.FlagUsed {
		t.Errorf("used flags %#x, want AVAIL|USED only", flags)
	}
}
