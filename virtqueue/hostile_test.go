// SPDX-License-Identifier: Apache-2.0

package virtqueue_test

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"hwvtpm/virtqueue"
	"hwvtpm/virtqueue/queuetest"
)

const (
	fNext     = queuetest.FlagNext
	fWrite    = queuetest.FlagWrite
	fIndirect = queuetest.FlagIndirect
)

// de is a descriptor: address, length, flags, and next index or buffer id.
func de(addr uint64, n uint32, flags, link uint16) queuetest.Desc {
	return queuetest.Desc{Addr: addr, Len: n, Flags: flags, Link: link}
}

// hostileSize is the Queue Size in these tests.
const hostileSize = 4

// attack is something a driver MUST NOT do, and the error it has to end in.
// buf is the address of 4096 valid bytes.
type attack struct {
	name string
	want error
	do   func(d *queuetest.Driver, buf uint64)
}

// chainAttacks are possible on both ring formats. Links count up, as a split
// chain needs; a packed ring takes them for ids.
var chainAttacks = []attack{
	{"writable before readable MUST NOT (2.7.4.2, 2.8.17)", virtqueue.ErrChain,
		func(d *queuetest.Driver, buf uint64) {
			d.Offer(de(buf, 1, fNext|fWrite, 1), de(buf, 1, 0, 2))
		}},
	{"empty writable before readable counts as well", virtqueue.ErrChain,
		func(d *queuetest.Driver, buf uint64) {
			d.Offer(de(buf, 0, fNext|fWrite, 1), de(buf, 1, 0, 2))
		}},
	{"address outside memory", virtqueue.ErrNoRegion,
		func(d *queuetest.Driver, buf uint64) { d.Offer(de(d.GPA(0)-1, 1, 0, 0)) }},
	{"address just past memory", virtqueue.ErrNoRegion,
		func(d *queuetest.Driver, buf uint64) { d.Offer(de(d.GPA(d.Layout().End), 1, fWrite, 0)) }},
	{"range past the end of memory", virtqueue.ErrCrossRegion,
		func(d *queuetest.Driver, buf uint64) { d.Offer(de(d.GPA(d.Layout().End-8), 9, fWrite, 0)) }},
	{"address plus length wraps around", virtqueue.ErrNoRegion,
		func(d *queuetest.Driver, buf uint64) { d.Offer(de(math.MaxUint64-3, 8, 0, 0)) }},
	{"user address in place of a guest address", virtqueue.ErrNoRegion,
		func(d *queuetest.Driver, buf uint64) { d.Offer(de(d.User(d.Layout().Heap), 1, 0, 0)) }},
	{"second of a chain outside memory", virtqueue.ErrNoRegion,
		func(d *queuetest.Driver, buf uint64) { d.Offer(de(buf, 1, fNext, 1), de(1, 1, 0, 0)) }},
	{"one length of 2^32-1", virtqueue.ErrCrossRegion,
		func(d *queuetest.Driver, buf uint64) { d.Offer(de(buf, math.MaxUint32, 0, 0)) }},
	{"lengths that add up to 2^32 (2.7.5.2)", virtqueue.ErrChain,
		func(d *queuetest.Driver, buf uint64) {
			d.Offer(de(buf, 1, fNext, 1), de(buf, math.MaxUint32, fWrite, 2))
		}},
	{"both INDIRECT and NEXT MUST NOT (2.7.5.3.1, 2.8.19)", virtqueue.ErrIndirect,
		func(d *queuetest.Driver, buf uint64) {
			d.Offer(de(d.PutTable(de(buf, 1, 0, 0)), 16, fIndirect|fNext, 1), de(buf, 1, 0, 0))
		}},
	{"indirect table of no entries", virtqueue.ErrIndirect,
		func(d *queuetest.Driver, buf uint64) { d.Offer(de(buf, 0, fIndirect, 0)) }},
	{"indirect table of half an entry", virtqueue.ErrIndirect,
		func(d *queuetest.Driver, buf uint64) { d.Offer(de(buf, 24, fIndirect, 0)) }},
	{"indirect table longer than the queue (2.7.5.3.1)", virtqueue.ErrIndirect,
		func(d *queuetest.Driver, buf uint64) { d.Offer(de(buf, 16*(hostileSize+1), fIndirect, 0)) }},
	{"indirect table outside memory", virtqueue.ErrNoRegion,
		func(d *queuetest.Driver, buf uint64) { d.Offer(de(8, 16, fIndirect, 0)) }},
	{"indirect table past the end of memory", virtqueue.ErrCrossRegion,
		func(d *queuetest.Driver, buf uint64) { d.Offer(de(d.GPA(d.Layout().End-16), 32, fIndirect, 0)) }},
	{"writable before readable inside a table", virtqueue.ErrChain,
		func(d *queuetest.Driver, buf uint64) {
			table := d.PutTable(de(buf, 1, fNext|fWrite, 1), de(buf, 1, 0, 0))
			d.Offer(de(table, 32, fIndirect, 0))
		}},
	{"address outside memory inside a table", virtqueue.ErrNoRegion,
		func(d *queuetest.Driver, buf uint64) { d.Offer(de(d.PutTable(de(0, 1, 0, 0)), 16, fIndirect, 0)) }},
}

var splitAttacks = []attack{
	{"available index jumps over more than the queue", virtqueue.ErrIndex,
		func(d *queuetest.Driver, buf uint64) { d.SetAvailIdx(d.AvailIdx() + hostileSize + 1) }},
	{"available idx decremented MUST NOT (2.7.6.1)", virtqueue.ErrIndex,
		func(d *queuetest.Driver, buf uint64) { d.SetAvailIdx(d.AvailIdx() - 1) }},
	{"head beyond the table", virtqueue.ErrIndex,
		func(d *queuetest.Driver, buf uint64) {
			d.SetAvail(d.AvailIdx(), hostileSize)
			d.SetAvailIdx(d.AvailIdx() + 1)
		}},
	{"head 65535", virtqueue.ErrIndex,
		func(d *queuetest.Driver, buf uint64) {
			d.SetAvail(d.AvailIdx(), math.MaxUint16)
			d.SetAvailIdx(d.AvailIdx() + 1)
		}},
	{"next beyond the table", virtqueue.ErrIndex,
		func(d *queuetest.Driver, buf uint64) { d.Offer(de(buf, 1, fNext, hostileSize)) }},
	{"loops are forbidden (2.7.5.2): a descriptor to itself", virtqueue.ErrChain,
		func(d *queuetest.Driver, buf uint64) { d.Offer(de(buf, 1, fNext, 0)) }},
	{"loop of zero lengths", virtqueue.ErrChain,
		func(d *queuetest.Driver, buf uint64) { d.Offer(de(buf, 0, fNext, 1), de(buf, 0, fNext, 0)) }},
	{"loop over the whole table", virtqueue.ErrChain,
		func(d *queuetest.Driver, buf uint64) {
			d.Offer(de(buf, 1, fNext, 1), de(buf, 1, fNext, 2), de(buf, 1, fNext, 3), de(buf, 1, fNext, 0))
		}},
	{"loop inside an indirect table", virtqueue.ErrChain,
		func(d *queuetest.Driver, buf uint64) {
			table := d.PutTable(de(buf, 1, fNext, 1), de(buf, 1, fNext, 0))
			d.Offer(de(table, 32, fIndirect, 0))
		}},
	{"next beyond an indirect table, though inside the ring", virtqueue.ErrIndex,
		func(d *queuetest.Driver, buf uint64) {
			d.Offer(de(d.PutTable(de(buf, 1, fNext, 1)), 16, fIndirect, 0))
		}},
	{"INDIRECT within an indirect descriptor MUST NOT (2.7.5.3.1)", virtqueue.ErrIndirect,
		func(d *queuetest.Driver, buf uint64) {
			inner := d.PutTable(de(buf, 1, 0, 0))
			d.Offer(de(d.PutTable(de(inner, 16, fIndirect, 0)), 16, fIndirect, 0))
		}},
	{"a table that refers to itself", virtqueue.ErrIndirect,
		func(d *queuetest.Driver, buf uint64) {
			off := d.Alloc(16)
			d.PutDesc(off, de(d.GPA(off), 16, fIndirect, 0))
			d.Offer(de(d.GPA(off), 16, fIndirect, 0))
		}},
	{"chain longer than the queue, direct and indirect together (2.7.5.3.1)", virtqueue.ErrChain,
		func(d *queuetest.Driver, buf uint64) {
			table := d.PutTable(de(buf, 1, fNext, 1), de(buf, 1, fNext, 2), de(buf, 1, 0, 0))
			d.Offer(de(buf, 1, fNext, 1), de(buf, 1, fNext, 2), de(table, 48, fIndirect, 0))
		}},
}

var packedAttacks = []attack{
	{"list longer than the Queue Size MUST NOT (2.8.17)", virtqueue.ErrChain,
		func(d *queuetest.Driver, buf uint64) {
			d.Offer(de(buf, 1, fNext, 0), de(buf, 1, fNext, 0), de(buf, 1, fNext, 0), de(buf, 1, fNext, 0))
		}},
	{"list of zero lengths without end", virtqueue.ErrChain,
		func(d *queuetest.Driver, buf uint64) {
			d.Offer(de(0, 0, fNext, 0), de(0, 0, fNext, 0), de(0, 0, fNext, 0), de(0, 0, fNext, 0))
		}},
	{"INDIRECT in a list linked by NEXT MUST NOT (2.8.19)", virtqueue.ErrIndirect,
		func(d *queuetest.Driver, buf uint64) {
			d.Offer(de(buf, 1, fNext, 0), de(d.PutTable(de(buf, 1, 0, 0)), 16, fIndirect, 0))
		}},
}

func TestHostileDriverStopsItsRing(t *testing.T) {
	for _, packed := range []bool{false, true} {
		attacks := append(chainAttacks[:len(chainAttacks):len(chainAttacks)], splitAttacks...)
		if packed {
			attacks = append(chainAttacks[:len(chainAttacks):len(chainAttacks)], packedAttacks...)
		}
		for _, a := range attacks {
			o := queuetest.Options{Size: hostileSize, Packed: packed, Indirect: true}
			t.Run(name(o)+"/"+a.name, func(t *testing.T) { attackFails(t, o, a) })
		}
	}
}

func attackFails(t *testing.T, o queuetest.Options, a attack) {
	d, q := pair(t, nearWrap(o))
	a.do(d, d.GPA(d.Alloc(4096)))
	before := bytes.Clone(d.Bytes())

	var c virtqueue.Chain
	ok, err := q.Pop(&c)
	if ring := new(virtqueue.RingError); ok || !errors.As(err, &ring) || !errors.Is(err, a.want) {
		t.Fatalf("Pop = %v, %v, want a RingError that is %q", ok, err, a.want)
	}
	if _, again := q.Pop(&c); again != err {
		t.Errorf("second Pop = %v, want the same error", again)
	}
	if _, kick := q.EnableKick(); kick != err {
		t.Errorf("EnableKick = %v, want the same error", kick)
	}
	if c.Readable() != 0 || c.Writable() != 0 {
		t.Errorf("chain of %d and %d bytes left by a failed Pop", c.Readable(), c.Writable())
	}
	if !bytes.Equal(before, d.Bytes()) {
		t.Error("guest memory changed")
	}
}

// "The driver MUST NOT set the VIRTQ_DESC_F_INDIRECT flag unless the
// VIRTIO_F_INDIRECT_DESC feature was negotiated" (2.7.5.3.1, 2.8.19).
func TestIndirectWithoutFeature(t *testing.T) {
	for _, packed := range []bool{false, true} {
		attackFails(t, queuetest.Options{Size: hostileSize, Packed: packed}, attack{
			want: virtqueue.ErrIndirect,
			do: func(d *queuetest.Driver, buf uint64) {
				d.Offer(de(d.PutTable(de(buf, 1, 0, 0)), 16, fIndirect, 0))
			},
		})
	}
}

// MaxChainBytes bounds readable and writable bytes together, to the byte.
func TestMaxChainBytes(t *testing.T) {
	forEachFormat(t, 8, func(t *testing.T, o queuetest.Options) {
		d := queuetest.NewDriver(o)
		cfg := d.Config()
		cfg.MaxChainBytes = 1000
		q := open(t, d, cfg)
		add(t, d, [][]byte{make([]byte, 300)}, []int{300, 400}, o.Indirect)
		pop(t, q, new(virtqueue.Chain))
		add(t, d, [][]byte{make([]byte, 300)}, []int{701}, o.Indirect)
		if ok, err := q.Pop(new(virtqueue.Chain)); ok || !errors.Is(err, virtqueue.ErrChain) {
			t.Errorf("Pop of 1001 bytes = %v, %v, want ErrChain", ok, err)
		}
	})
}

// A buffer across two regions is refused even if both are mapped and touch
// (the class of CVE-2018-1059: guest-contiguous is not host-contiguous).
func TestBufferAcrossRegions(t *testing.T) {
	for _, packed := range []bool{false, true} {
		d := queuetest.NewDriver(queuetest.Options{Size: hostileSize, Packed: packed})
		cut := d.Alloc(64) + 32
		mem, err := virtqueue.NewMemory([]virtqueue.Region{
			{GPA: d.GPA(0), UserAddr: d.User(0), Mem: d.Bytes()[:cut]},
			{GPA: d.GPA(cut), UserAddr: d.User(cut), Mem: d.Bytes()[cut:]},
		})
		if err != nil {
			t.Fatal(err)
		}
		q, err := virtqueue.New(mem, d.Config())
		if err != nil {
			t.Fatal(err)
		}
		d.Offer(de(d.GPA(cut-1), 2, fWrite, 0))
		if ok, err := q.Pop(new(virtqueue.Chain)); ok || !errors.Is(err, virtqueue.ErrCrossRegion) {
			t.Errorf("packed %v: Pop = %v, %v, want ErrCrossRegion", packed, ok, err)
		}
	}
}

// The class of CVE-2026-93683: whatever the driver rewrites after Pop, direct
// or in a table, only the copy that was checked counts.
func TestTableChangedAfterPop(t *testing.T) {
	forEachFormat(t, 8, func(t *testing.T, o queuetest.Options) {
		d, q := pair(t, o)
		secret := d.Alloc(64)
		copy(d.Bytes()[secret:], "not yours")
		tok := add(t, d, [][]byte{[]byte("request")}, []int{16}, o.Indirect)
		var c virtqueue.Chain
		pop(t, q, &c)
		for off := 0; off+16 <= d.Layout().End; off += 16 { // every descriptor there is
			if got := d.GetDesc(off); got.Len == 7 || got.Len == 16 || got.Flags&fIndirect != 0 {
				d.PutDesc(off, queuetest.Desc{Addr: d.GPA(secret), Len: 0xffff_0000, Flags: got.Flags ^ fWrite, Link: 7})
			}
		}
		if got := readAll(t, d, &c); string(got) != "request" {
			t.Errorf("read %q, want request", got)
		}
		write(t, q, &c, []byte("response"))
		if got := string(d.Bytes()[secret : secret+9]); got != "not yours" {
			t.Errorf("bytes elsewhere became %q", got)
		}
		push(t, q, &c, 8)
		wantPoll(t, d, tok, []byte("response"))
	})
}

// The used index in guest memory is the device's output, not its input: a
// driver that overwrites it confuses only itself.
func TestSplitUsedIdxOverwritten(t *testing.T) {
	d, q := pair(t, queuetest.Options{Size: 4})
	tok := add(t, d, nil, []int{4}, false)
	var c virtqueue.Chain
	pop(t, q, &c)
	d.SetUsed(0xffff, 0x1234)
	push(t, q, &c, 0)
	if d.UsedIdx() != 1 || d.UsedFlags() != 0 {
		t.Errorf("used idx %d flags %d, want 1 and 0", d.UsedIdx(), d.UsedFlags())
	}
	wantPoll(t, d, tok, nil)
}

// A driver that re-offers what the device still holds gets at most Queue Size
// chains into flight.
func TestSplitTooManyInFlight(t *testing.T) {
	d, q := pair(t, queuetest.Options{Size: 2})
	buf := d.GPA(d.Alloc(16))
	var chains [2]virtqueue.Chain
	for i := range chains {
		d.Offer(de(buf, 1, 0, 0))
		pop(t, q, &chains[i])
	}
	d.Offer(de(buf, 1, 0, 0))
	if ok, err := q.Pop(new(virtqueue.Chain)); ok || !errors.Is(err, virtqueue.ErrIndex) {
		t.Fatalf("Pop = %v, %v, want ErrIndex", ok, err)
	}
	push(t, q, &chains[0], 0) // what was popped before may still be pushed
}

// An available index taken back (2.7.6.1) is noticed even where it still lies
// within the ring, among the chains in flight.
func TestSplitAvailIdxBehindChainsInFlight(t *testing.T) {
	d, q := pair(t, queuetest.Options{Size: 4})
	for range 2 {
		add(t, d, nil, []int{1}, false)
		pop(t, q, new(virtqueue.Chain))
	}
	d.SetAvailIdx(1)
	if ok, err := q.Pop(new(virtqueue.Chain)); ok || !errors.Is(err, virtqueue.ErrIndex) {
		t.Errorf("Pop = %v, %v, want ErrIndex", ok, err)
	}
}

// Wrap counter games: slots that are in flight are not available, whatever
// their flags say (2.8.16: a driver MUST NOT change a descriptor before it is
// used).
func TestPackedFlagsFlippedInFlight(t *testing.T) {
	d, q := pair(t, queuetest.Options{Size: 2, Packed: true, EventIdx: true})
	buf := d.GPA(d.Alloc(16))
	var chains [2]virtqueue.Chain
	for i := range chains {
		d.Offer(de(buf, 1, 0, uint16(i)))
		pop(t, q, &chains[i])
	}
	d.Offer(de(buf, 1, 0, 9)) // into slot 0, in the next lap's colours
	popNothing(t, q)
	if more, err := q.EnableKick(); more || err != nil {
		t.Errorf("EnableKick = %v, %v, want nothing: it would spin", more, err)
	}
}

// A descriptor whose flags are of another lap was not made available (2.8.15).
func TestPackedFlagsOfAnotherLap(t *testing.T) {
	for _, flags := range []uint16{0, queuetest.FlagUsed, queuetest.FlagAvail | queuetest.FlagUsed} {
		d, q := pair(t, queuetest.Options{Size: 4, Packed: true})
		d.SetDesc(0, de(d.GPA(d.Alloc(16)), 1, flags, 0))
		popNothing(t, q)
	}
}
