// SPDX-License-Identifier: Apache-2.0

package virtqueue_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"hwvtpm/virtqueue"
	"hwvtpm/virtqueue/queuetest"
)

// guard is the length of the bytes before, between and behind the memory given
// to a queue under fuzzing; nothing may touch them.
const guard = 64

// guarded is memory of two regions with guard bytes around each.
type guarded struct {
	all    []byte
	lo, hi []byte
}

func newGuarded(lo, hi int) *guarded {
	g := &guarded{all: bytes.Repeat([]byte{0xa5}, guard+lo+guard+hi+guard)}
	g.lo, g.hi = g.all[guard:guard+lo], g.all[2*guard+lo:2*guard+lo+hi]
	clear(g.lo)
	clear(g.hi)
	return g
}

func (g *guarded) check(t *testing.T) {
	t.Helper()
	ok := true
	for _, start := range []int{0, guard + len(g.lo), 2*guard + len(g.lo) + len(g.hi)} {
		ok = ok && bytes.Equal(g.all[start:start+guard], bytes.Repeat([]byte{0xa5}, guard))
	}
	if !ok {
		t.Fatal("bytes outside guest memory changed")
	}
}

// input hands out the fuzzer's bytes; past their end there are zeros.
type input []byte

func (in *input) byte() byte {
	if len(*in) == 0 {
		return 0
	}
	b := (*in)[0]
	*in = (*in)[1:]
	return b
}

func (in *input) u16() uint16 { return uint16(in.byte()) | uint16(in.byte())<<8 }

// desc reads a descriptor that is likely to be plausible: the address is near
// the start of memory, the length has a byte for each order of magnitude.
func (in *input) desc(d *queuetest.Driver) queuetest.Desc {
	addr := d.GPA(0) + uint64(in.u16())
	n := uint32(in.byte()) << (in.byte() % 32)
	return de(addr, n, uint16(in.byte())|uint16(in.byte())<<15, uint16(in.byte()))
}

// rawMemory is two regions that touch, at guest physical address 0 so that
// short byte strings make valid addresses, and a ring at the start of the first:
// every byte of it is the fuzzer's.
//
//	data   size, position, then the bytes of memory: ring first
type rawMemory struct {
	*guarded
	mem *virtqueue.Memory
	cfg virtqueue.Config
}

const rawUser = 0x7f0000000000

func newRawMemory(t *testing.T, data []byte, packed bool) rawMemory {
	in := input(data)
	size := 1 + in.byte()%8
	position := uint32(in.byte())
	g := newGuarded(2048, 2048)
	n := copy(g.lo, in)
	copy(g.hi, in[n:])
	mem, err := virtqueue.NewMemory([]virtqueue.Region{
		{GPA: 0, UserAddr: rawUser, Mem: g.lo}, {GPA: 2048, UserAddr: rawUser + 2048, Mem: g.hi},
	})
	if err != nil {
		t.Fatal(err)
	}
	cfg := virtqueue.Config{
		Features: 1<<virtqueue.FeatureVersion1 | 1<<virtqueue.FeatureEventIdx | 1<<virtqueue.FeatureIndirectDesc,
		Log:      virtqueue.NewDirtyLog(make([]byte, 4)), LogUsed: true,
	}
	if packed {
		cfg.Features |= 1 << virtqueue.FeatureRingPacked
		cfg.Size = uint16(size)
		cfg.Base = (position & 7) | (position>>3&1)<<15 | (position>>4&7)<<16 | (position>>7)<<31
		cfg.Driver, cfg.Device = rawUser+8*16, rawUser+8*16+4
	} else {
		cfg.Size = 1 << (size % 4)
		cfg.Driver, cfg.Device = rawUser+8*16, rawUser+8*16+24
		used := binary.LittleEndian.Uint16(g.lo[8*16+24+2:])
		cfg.Base = uint32(used + uint16(position)%(cfg.Size+1)) // what New accepts
	}
	cfg.Desc, cfg.LogUsedAddr = rawUser, cfg.Device-rawUser
	return rawMemory{g, mem, cfg}
}

// rawRing pops, uses and pushes until the ring is empty or broken.
func rawRing(t *testing.T, data []byte, packed bool) (used int) {
	r := newRawMemory(t, data, packed)
	q, err := virtqueue.New(r.mem, r.cfg)
	if err != nil {
		return 0
	}
	var c virtqueue.Chain
	for used < 64 && useOne(t, r.mem, q, &c) { // buffers may lie over the ring and refill it for ever
		used++
	}
	r.check(t)
	return used
}

// useOne serves one chain as a device would and checks what must hold whatever
// the driver did.
func useOne(t *testing.T, mem *virtqueue.Memory, q *virtqueue.Queue, c *virtqueue.Chain) bool {
	ok, err := q.Pop(c)
	if ring := new(virtqueue.RingError); err != nil && !errors.As(err, &ring) {
		t.Fatalf("Pop = %v, want a RingError", err)
	}
	if !ok {
		return false
	}
	// The memory map is what it was at Pop, so reading and writing cannot fail.
	// A chain of at most 8 descriptors, each in a region of 2 KiB, has a bound.
	buf := make([]byte, 8*2048)
	if int(c.Readable())+int(c.Writable()) > len(buf) {
		t.Fatalf("chain of %d and %d bytes in 2 regions of 2048", c.Readable(), c.Writable())
	}
	if n, err := c.ReadAt(mem, buf, 0); err != nil || n != min(len(buf), int(c.Readable())) {
		t.Fatalf("ReadAt = %d, %v of %d", n, err, c.Readable())
	}
	out := buf[:min(len(buf), int(c.Writable()))]
	if n, err := c.WriteAt(q, out, 0); err != nil || n != len(out) {
		t.Fatalf("WriteAt = %d, %v of %d", n, err, len(out))
	}
	if err := q.Push(c, uint32(len(out))); err != nil {
		t.Fatalf("Push = %v", err)
	}
	q.NeedCall()
	if _, err := q.EnableKick(); err != nil {
		t.Fatalf("EnableKick = %v on a ring that works", err)
	}
	return true
}

// rawDesc is a descriptor of the format as bytes.
func rawDesc(packed bool, addr uint64, n uint32, flags, link uint16) []byte {
	b := binary.LittleEndian.AppendUint64(nil, addr)
	b = binary.LittleEndian.AppendUint32(b, n)
	if packed {
		flags, link = link, flags|queuetest.FlagAvail
	}
	b = binary.LittleEndian.AppendUint16(b, flags)
	return binary.LittleEndian.AppendUint16(b, link)
}

// rawSeeds are valid rings of 8 with one chain available: direct, and in a table.
func rawSeeds(packed bool) [][]byte {
	position, head := byte(0), byte(7)
	if packed {
		position = 1<<3 | 1<<7 // both wrap counters 1
	} else {
		head = 2 // a size of 1<<3
	}
	ring := make([]byte, 8*16+24+72)
	if !packed {
		ring[8*16+2] = 1 // avail.idx; avail.ring[0] is 0
	}
	chain := append(rawDesc(packed, 1024, 16, fNext, 1), rawDesc(packed, 1100, 32, fWrite, 0)...)
	direct, indirect := bytes.Clone(ring), bytes.Clone(ring)
	copy(direct, chain)
	copy(indirect, rawDesc(packed, uint64(len(ring)), 32, fIndirect, 0))
	indirect = append(indirect, chain...)
	var seeds [][]byte
	for _, b := range [][]byte{direct, indirect} {
		seeds = append(seeds, append([]byte{head, position}, b...))
	}
	return seeds
}

// The seeds must reach the interesting code, or the fuzzers begin blind.
func TestFuzzSeedsAreValidRings(t *testing.T) {
	for _, packed := range []bool{false, true} {
		for i, seed := range rawSeeds(packed) {
			if used := rawRing(t, seed, packed); used != 1 {
				t.Errorf("packed %v, seed %d: %d chains used, want 1", packed, i, used)
			}
		}
	}
}

func FuzzSplitRing(f *testing.F) {
	for _, seed := range rawSeeds(false) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) { rawRing(t, data, false) })
}

func FuzzPackedRing(f *testing.F) {
	for _, seed := range rawSeeds(true) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) { rawRing(t, data, true) })
}
