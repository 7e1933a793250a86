// SPDX-License-Identifier: Apache-2.0

package virtqueue

import (
	"fmt"
	"io"
)

// segment is one checked piece of guest memory of a chain.
type segment struct {
	gpa uint64
	len uint32
}

// Chain is one request of the driver: a private, checked copy of its
// descriptors. The zero value is ready for [Queue.Pop]; reuse it, since it keeps
// the room for its longest chain. Between Pop and Push it belongs to the queue
// it came from and must be neither copied nor popped into again.
//
// The device-readable and the device-writable part are two byte streams;
// descriptor boundaries are not visible (VIRTIO 1.3 2.7.4.1).
type Chain struct {
	segs     []segment // readable ones first
	nread    int       // how many of segs are readable
	readable uint32
	writable uint32
	ordered  bool   // a writable descriptor was seen: no readable may follow
	head     uint16 // split: head descriptor; packed: buffer id
	slots    uint16 // packed: ring slots the chain occupies
	queue    *Queue // the queue that waits for Push; nil: not popped
}

// Readable returns the length of the device-readable part in bytes.
func (c *Chain) Readable() uint32 { return c.readable }

// Writable returns the length of the device-writable part in bytes.
func (c *Chain) Writable() uint32 { return c.writable }

// Head returns what the used entry will name: the head descriptor's index
// (split) or the buffer id (packed).
func (c *Chain) Head() uint16 { return c.head }

// ReadAt copies device-readable bytes from offset off into dst and returns how
// many: fewer than len(dst) only where the readable part ends (which is no
// error) or with an error. Addresses are translated by mem now, not at Pop; an
// error (ErrNoRegion, ErrCrossRegion) means that mem changed since.
func (c *Chain) ReadAt(mem *Memory, dst []byte, off uint32) (int, error) {
	n := 0
	for _, s := range c.segs[:c.nread] {
		if n == len(dst) {
			break
		}
		if off >= s.len {
			off -= s.len
			continue
		}
		want := min(uint64(s.len-off), uint64(len(dst)-n))
		b, err := mem.Guest(s.gpa+uint64(off), want)
		if err != nil {
			return n, err
		}
		n += copy(dst[n:], b)
		off = 0
	}
	return n, nil
}

// WriteAt copies src to offset off of the device-writable part through q's
// memory, marks the pages in q's dirty log, and returns how many bytes it
// wrote. It returns io.ErrShortWrite if the writable part ends first, and an
// address error under the conditions of [Chain.ReadAt]. q must be the queue the
// chain was popped from.
func (c *Chain) WriteAt(q *Queue, src []byte, off uint32) (int, error) {
	if c.queue != q || q.mem == nil {
		return 0, fmt.Errorf("%w: written without being held", ErrMisuse)
	}
	n := 0
	for _, s := range c.segs[c.nread:] {
		if n == len(src) {
			break
		}
		if off >= s.len {
			off -= s.len
			continue
		}
		gpa, want := s.gpa+uint64(off), min(uint64(s.len-off), uint64(len(src)-n))
		b, err := q.mem.Guest(gpa, want)
		if err != nil {
			return n, err
		}
		n += copy(b, src[n:])
		q.mark(gpa, want)
		off = 0
	}
	if n < len(src) {
		return n, io.ErrShortWrite
	}
	return n, nil
}

// reset empties c, keeping its room.
func (c *Chain) reset() { *c = Chain{segs: c.segs[:0]} }

// add checks one descriptor copy and appends it. limit is the most bytes the
// whole chain may have.
//
// A descriptor of length zero is legal (no rule of VIRTIO 1.3 forbids it): it
// counts as a descriptor for the length and order of the chain, so it cannot
// make a walk endless, and its address is never used.
func (c *Chain) add(mem *Memory, d desc, limit uint32) error {
	writable := d.flags&flagWrite != 0
	if c.ordered && !writable {
		return fmt.Errorf("%w: device-readable after device-writable (2.7.4.2)", ErrChain)
	}
	c.ordered = c.ordered || writable
	if total := uint64(c.readable) + uint64(c.writable) + uint64(d.len); total > uint64(limit) {
		return fmt.Errorf("%w: %d bytes, at most %d allowed", ErrChain, total, limit)
	}
	if d.len == 0 {
		return nil
	}
	if _, err := mem.Guest(d.addr, uint64(d.len)); err != nil {
		return err
	}
	c.segs = append(c.segs, segment{d.addr, d.len})
	if writable {
		c.writable += d.len
	} else {
		c.nread++
		c.readable += d.len
	}
	return nil
}
