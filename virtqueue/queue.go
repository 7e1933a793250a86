// SPDX-License-Identifier: Apache-2.0

package virtqueue

import "fmt"

// Queue is the device's end of one virtqueue. It is not safe for concurrent
// use: one goroutine at a time owns it and its chains.
type Queue struct {
	cfg    Config
	limit  uint32 // most bytes in a chain
	mem    *Memory
	ring   ring
	broken error // why no Pop can succeed any more
}

// ring is what differs between the two formats.
type ring interface {
	// attach finds the ring's parts in mem; the positions stay.
	attach(mem *Memory, cfg *Config) error
	// start takes the positions from cfg.Base; the ring is attached.
	start(cfg *Config) error
	// pop fills the emptied c. On an error the ring is broken.
	pop(q *Queue, c *Chain) (bool, error)
	// push publishes the used entry of c.
	push(q *Queue, c *Chain, written uint32)
	// needCall answers for all pushes since the last needCall.
	needCall() bool
	// arm asks for kicks and reports whether work is available by now.
	arm(q *Queue) bool
	// disarm asks for no kicks.
	disarm(q *Queue)
	// base returns the positions as in Config.Base.
	base() uint32
	// at returns the position that a RingError names.
	at() uint16
}

// New opens a queue. It reads the ring's positions but writes nothing to guest
// memory. Errors wrap ErrConfig, ErrIndex, ErrNoRegion or ErrCrossRegion.
func New(mem *Memory, cfg Config) (*Queue, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	q := &Queue{cfg: cfg, limit: cfg.maxChainBytes(), mem: mem}
	if cfg.has(FeatureRingPacked) {
		q.ring = new(packedRing)
	} else {
		q.ring = new(splitRing)
	}
	if err := q.ring.attach(mem, &q.cfg); err != nil {
		return nil, err
	}
	if err := q.ring.start(&q.cfg); err != nil {
		return nil, err
	}
	return q, nil
}

// SetMemory makes the queue use mem from now on, for its rings too: the memory
// table changed. If the rings are not in mem the queue is as good as closed and
// touches no memory any more. Chains in flight stay valid and are translated by
// mem when they are next used.
func (q *Queue) SetMemory(mem *Memory) error {
	if q.mem == nil {
		return ErrClosed
	}
	if err := q.ring.attach(mem, &q.cfg); err != nil {
		q.Close()
		return err
	}
	q.mem = mem
	return nil
}

// SetLog replaces the dirty log (nil: none) and the fields of Config that go
// with it.
func (q *Queue) SetLog(log *DirtyLog, used bool, usedAddr uint64) {
	q.cfg.Log, q.cfg.LogUsed, q.cfg.LogUsedAddr = log, used, usedAddr
}

// Pop takes the next available chain into c. It returns false if there is none.
// On a *RingError the ring is broken: every later Pop returns the same error,
// and the caller stops the ring; chains popped before may still be pushed.
// ErrClosed after Close. ErrMisuse, which breaks nothing, if c is in flight
// from a queue that is open.
func (q *Queue) Pop(c *Chain) (bool, error) {
	if q.mem == nil {
		return false, ErrClosed
	}
	if q.broken != nil {
		return false, q.broken
	}
	if c.queue != nil && c.queue.mem != nil {
		return false, fmt.Errorf("%w: popped into while in flight", ErrMisuse)
	}
	c.reset()
	at := q.ring.at()
	ok, err := q.ring.pop(q, c)
	if err != nil {
		c.reset()
		q.broken = &RingError{Op: "pop", Index: at, Err: err}
		return false, q.broken
	}
	if ok {
		c.queue = q
	}
	return ok, nil
}

// Push gives c back to the driver: the device has written the first written
// bytes of its writable part. Chains may be pushed in any order. ErrMisuse if
// c is not in flight from q, or written is above c.Writable() (a device MUST
// NOT claim bytes it had no room for, 2.7.8.2); nothing is published then.
func (q *Queue) Push(c *Chain, written uint32) error {
	if q.mem == nil {
		return ErrClosed
	}
	if c.queue != q {
		return fmt.Errorf("%w: pushed without being held", ErrMisuse)
	}
	if written > c.writable {
		return fmt.Errorf("%w: %d bytes written into %d", ErrMisuse, written, c.writable)
	}
	q.ring.push(q, c, written)
	c.queue = nil
	return nil
}

// NeedCall reports whether the driver wants to be interrupted for what was
// pushed since the last NeedCall (VIRTIO 1.3 2.7.7.2, 2.8.10); false if that is
// nothing. With EVENT_IDX the first call after New says yes once something was
// pushed, whatever the driver asked for: a predecessor of this Queue may have
// pushed and never called, and a spurious call is harmless.
func (q *Queue) NeedCall() bool {
	return q.mem != nil && q.ring.needCall()
}

// EnableKick asks the driver to kick when it makes chains available, then looks
// once more: true means that work arrived before the driver could have seen
// the request, so the caller must Pop again instead of waiting.
func (q *Queue) EnableKick() (bool, error) {
	if q.mem == nil {
		return false, ErrClosed
	}
	if q.broken != nil {
		return false, q.broken
	}
	return q.ring.arm(q), nil
}

// DisableKick tells the driver that kicks are useless for now. It is a hint:
// the driver may kick all the same.
func (q *Queue) DisableKick() {
	if q.mem != nil {
		q.ring.disarm(q)
	}
}

// Base returns where the ring stands, encoded like Config.Base, also after
// Close. A chain that was popped and not pushed is behind the base: whoever
// continues from it never sees that chain, so push all chains first.
func (q *Queue) Base() uint32 { return q.ring.base() }

// Close makes the queue forget guest memory. It is idempotent; like every
// method it belongs to the owner goroutine. Later calls do nothing or return
// ErrClosed, and chains in flight can no longer be pushed.
func (q *Queue) Close() { q.mem, q.cfg.Log = nil, nil }

// mark records a write to guest memory.
func (q *Queue) mark(gpa, n uint64) {
	if q.cfg.Log != nil {
		q.cfg.Log.Mark(gpa, n)
	}
}

// markDevice records a write to the device area of the ring.
func (q *Queue) markDevice(off, n int) {
	if q.cfg.LogUsed {
		q.mark(q.cfg.LogUsedAddr+uint64(off), uint64(n))
	}
}

// table finds the indirect table that d refers to, of at most Queue Size
// entries (2.7.5.3.1: no chain longer than the Queue Size).
func (q *Queue) table(d desc) ([]byte, error) {
	switch {
	case !q.cfg.has(FeatureIndirectDesc):
		return nil, fmt.Errorf("%w: feature not negotiated", ErrIndirect)
	case d.len == 0 || d.len%descSize != 0:
		return nil, fmt.Errorf("%w: table of %d bytes", ErrIndirect, d.len)
	case d.len/descSize > uint32(q.cfg.Size):
		return nil, fmt.Errorf("%w: table of %d entries, queue size %d", ErrIndirect, d.len/descSize, q.cfg.Size)
	}
	return q.mem.Guest(d.addr, uint64(d.len))
}
