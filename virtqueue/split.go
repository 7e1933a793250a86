// SPDX-License-Identifier: Apache-2.0

package virtqueue

import (
	"encoding/binary"
	"fmt"
)

// Offsets in the split ring's parts.
//
//	available ring (2.7.6), driver writes      used ring (2.7.8), device writes
//	0     le16 flags                           0     le16 flags
//	2     le16 idx                             2     le16 idx
//	4+2i  le16 ring[i]                         4+8i  le32 id, le32 len of ring[i]
//	4+2n  le16 used_event                      4+8n  le16 avail_event
const (
	ringFlags   = 0
	ringIdx     = 2
	ringEntries = 4

	availEntry = 2
	usedEntry  = 8

	availNoInterrupt = 1 // VIRTQ_AVAIL_F_NO_INTERRUPT
	usedNoNotify     = 1 // VIRTQ_USED_F_NO_NOTIFY
)

// splitRing is a split virtqueue. Positions are the free-running 16-bit
// indices of the specification; nextUsed <= nextAvail <= nextUsed+size in
// modular arithmetic.
type splitRing struct {
	table, avail, used area
	size               uint16
	eventIdx           bool

	nextAvail uint16 // index of the next available entry to pop
	nextUsed  uint16 // our own copy of used.idx: the guest can write that one too
	flags     uint16 // our own copy of used.flags
	calls     callState
}

func (r *splitRing) attach(mem *Memory, cfg *Config) error {
	n := uint64(cfg.Size)
	table, err := openArea(mem, cfg.Desc, n*descSize, 16)
	if err != nil {
		return fmt.Errorf("descriptor table: %w", err)
	}
	avail, err := openArea(mem, cfg.Driver, ringEntries+n*availEntry+2, 2)
	if err != nil {
		return fmt.Errorf("available ring: %w", err)
	}
	used, err := openArea(mem, cfg.Device, ringEntries+n*usedEntry+2, 4)
	if err != nil {
		return fmt.Errorf("used ring: %w", err)
	}
	r.table, r.avail, r.used = table, avail, used
	r.size, r.eventIdx = cfg.Size, cfg.has(FeatureEventIdx)
	return nil
}

func (r *splitRing) start(cfg *Config) error {
	r.nextAvail = uint16(cfg.Base)
	r.nextUsed = r.used.load16(ringIdx)
	if r.nextAvail-r.nextUsed > r.size {
		return fmt.Errorf("%w: base %d with used index %d in a ring of %d", ErrIndex, r.nextAvail, r.nextUsed, r.size)
	}
	return nil
}

func (r *splitRing) base() uint32 { return uint32(r.nextAvail) }
func (r *splitRing) at() uint16   { return r.nextAvail }

func (r *splitRing) pop(q *Queue, c *Chain) (bool, error) {
	idx := r.avail.load16(ringIdx) // acquires the entries and tables behind it
	if idx == r.nextAvail {
		return false, nil
	}
	// Each chain in flight holds a descriptor, so available minus used is at
	// most the queue size. This also catches a decremented idx (2.7.6.1).
	if idx-r.nextUsed > r.size || idx-r.nextAvail > r.size {
		return false, fmt.Errorf("%w: available index %d, next %d, used %d, queue size %d",
			ErrIndex, idx, r.nextAvail, r.nextUsed, r.size)
	}
	slot := int(r.nextAvail & (r.size - 1))
	head := r.avail.load16(ringEntries + slot*availEntry)
	if err := r.walk(q, c, head); err != nil {
		return false, err
	}
	c.head = head
	r.nextAvail++
	return true, nil
}

// walk copies the chain that begins at head into c: a chain of direct
// descriptors, then at most one indirect table, which is the last link
// (2.7.5.3.1, 2.7.5.3.2).
func (r *splitRing) walk(q *Queue, c *Chain, head uint16) error {
	w := tableWalk{table: r.table.bytes(0, int(r.size)*descSize), next: uint32(head), left: r.size}
	last, err := w.follow(q, c)
	if err != nil || last.flags&flagIndirect == 0 {
		return err
	}
	if last.flags&flagNext != 0 {
		return fmt.Errorf("%w: not the last of its chain", ErrIndirect)
	}
	if w.table, err = q.table(last); err != nil {
		return err
	}
	w.next = 0
	if last, err = w.follow(q, c); err == nil && last.flags&flagIndirect != 0 {
		err = fmt.Errorf("%w: nested in a table", ErrIndirect)
	}
	return err
}

// tableWalk follows a chain through one table, and then through another.
type tableWalk struct {
	table []byte
	next  uint32
	left  uint16 // descriptors the chain may still have: loops end here (2.7.5.2)
}

// follow adds descriptors to c up to the last one or to an indirect one, which
// is returned.
func (w *tableWalk) follow(q *Queue, c *Chain) (desc, error) {
	for {
		if entries := uint32(len(w.table) / descSize); w.next >= entries {
			return desc{}, fmt.Errorf("%w: descriptor %d of a table of %d", ErrIndex, w.next, entries)
		}
		d := splitDesc(w.table, w.next)
		if d.flags&flagIndirect != 0 {
			return d, nil
		}
		if w.left == 0 {
			return desc{}, fmt.Errorf("%w: longer than the queue size %d", ErrChain, q.cfg.Size)
		}
		w.left--
		if err := c.add(q.mem, d, q.limit); err != nil {
			return desc{}, err
		}
		if d.flags&flagNext == 0 {
			return d, nil
		}
		w.next = uint32(d.link)
	}
}

func (r *splitRing) push(q *Queue, c *Chain, written uint32) {
	off := ringEntries + int(r.nextUsed&(r.size-1))*usedEntry
	e := r.used.bytes(off, usedEntry)
	binary.LittleEndian.PutUint32(e[0:], uint32(c.head))
	binary.LittleEndian.PutUint32(e[4:], written)
	q.markDevice(off, usedEntry)
	r.nextUsed++
	r.calls.pushed(1)
	r.publish(q)
}

// publish stores used.flags and used.idx, which share a word the device owns.
// It releases the used entries and the data written before.
func (r *splitRing) publish(q *Queue) {
	r.used.store32(ringFlags, uint32(r.flags)|uint32(r.nextUsed)<<16)
	q.markDevice(ringFlags, 4)
}

// needCall: 2.7.7.2. The loads come after publish in the order of sync/atomic,
// so either this side sees the driver's request or the driver sees the index.
func (r *splitRing) needCall() bool {
	n, first := r.calls.take()
	switch {
	case n == 0:
		return false
	case !r.eventIdx:
		return r.avail.load16(ringFlags)&availNoInterrupt == 0
	case first:
		return true
	}
	event := r.avail.load16(ringEntries + int(r.size)*availEntry)
	return uint32(r.nextUsed-event-1) < n // event is among the n last entries; always, if n is above 65535
}

// arm: 2.7.10. With EVENT_IDX used.flags stays 0 and avail_event names the
// entry to be kicked for. Without, the flag is stored even if this queue never
// set it: a predecessor may have.
func (r *splitRing) arm(q *Queue) bool {
	if r.eventIdx {
		off := ringEntries + int(r.size)*usedEntry
		r.used.set16(off, r.nextAvail)
		q.markDevice(off, 2)
	} else {
		r.flags = 0
		r.publish(q)
	}
	return r.avail.load16(ringIdx) != r.nextAvail
}

// disarm: with EVENT_IDX there is nothing to say. An avail_event that is left
// behind is the suppression.
func (r *splitRing) disarm(q *Queue) {
	if !r.eventIdx {
		r.flags = usedNoNotify
		r.publish(q)
	}
}
