// SPDX-License-Identifier: Apache-2.0

package virtqueue

import (
	"encoding/binary"
	"fmt"
)

// Offsets in the packed ring's parts.
//
//	descriptor ring (2.8.13), written in turns   event suppression (2.8.14)
//	16i+0   le64 addr                            0  le16 bits 0-14 offset, 15 wrap
//	16i+8   le32 len                             2  le16 bits 0-1 flags
//	16i+12  le16 id
//	16i+14  le16 flags
const (
	packedLen  = 8
	packedWord = 12 // {id, flags}, one aligned word

	eventSize    = 4
	eventEnable  = 0 // RING_EVENT_FLAGS_ENABLE
	eventDisable = 1 // RING_EVENT_FLAGS_DISABLE
	eventDesc    = 2 // RING_EVENT_FLAGS_DESC
)

// packedRing is a packed virtqueue. The used position follows the available
// position at most size slots behind; the slots between are in flight.
type packedRing struct {
	ring, driver, device area
	ringGPA              uint64 // of ring, for the dirty log
	size                 uint16
	eventIdx             bool

	avail position // slot of the next chain to pop
	used  position // slot of the next used descriptor
	calls callState
}

func (r *packedRing) attach(mem *Memory, cfg *Config) error {
	ring, err := openArea(mem, cfg.Desc, uint64(cfg.Size)*descSize, 16)
	if err != nil {
		return fmt.Errorf("descriptor ring: %w", err)
	}
	driver, err := openArea(mem, cfg.Driver, eventSize, 4)
	if err != nil {
		return fmt.Errorf("driver event suppression: %w", err)
	}
	device, err := openArea(mem, cfg.Device, eventSize, 4)
	if err != nil {
		return fmt.Errorf("device event suppression: %w", err)
	}
	r.ring, r.driver, r.device = ring, driver, device
	r.ringGPA, _ = mem.UserToGuest(cfg.Desc) // openArea found it
	r.size, r.eventIdx = cfg.Size, cfg.has(FeatureEventIdx)
	return nil
}

func (r *packedRing) start(cfg *Config) error {
	r.avail, r.used = decodePosition(uint16(cfg.Base)), decodePosition(uint16(cfg.Base>>16))
	if r.avail.slot >= r.size || r.used.slot >= r.size || r.inFlight() > r.size {
		return fmt.Errorf("%w: base %#x in a ring of %d", ErrIndex, cfg.Base, r.size)
	}
	return nil
}

func (r *packedRing) base() uint32 {
	return uint32(r.avail.encode()) | uint32(r.used.encode())<<16
}

func (r *packedRing) at() uint16       { return r.avail.slot }
func (r *packedRing) inFlight() uint16 { return uint16(r.avail.since(r.used, r.size)) }

// word loads id and flags of the descriptor at p. It acquires what the driver
// wrote before it stored them.
func (r *packedRing) word(p position) uint32 {
	return r.ring.load32(int(p.slot)*descSize + packedWord)
}

// available reports whether the word of the descriptor at the available
// position says that the driver made it available in this lap (2.8.1).
func (r *packedRing) available(word uint32) bool {
	flags := word >> 16
	return (flags&flagAvail != 0) == r.avail.wrap && (flags&flagUsed != 0) != r.avail.wrap
}

func (r *packedRing) pop(q *Queue, c *Chain) (bool, error) {
	free := r.size - r.inFlight()
	pos, word := r.avail, r.word(r.avail)
	if free == 0 || !r.available(word) {
		return false, nil
	}
	for {
		d := packedDesc(r.ring.bytes(int(pos.slot)*descSize, packedWord), word)
		c.slots++
		if err := r.take(q, c, d); err != nil {
			return false, err
		}
		pos = pos.advance(1, r.size)
		if d.flags&flagNext == 0 {
			c.head = d.link // the id is in the last descriptor of a list (2.8.6)
			r.avail = pos
			return true, nil
		}
		if c.slots == free { // 2.8.17: no list longer than the ring has room for
			return false, fmt.Errorf("%w: list longer than the %d free slots", ErrChain, free)
		}
		word = r.word(pos)
	}
}

// take adds one descriptor of a list to c. A list is either direct or one
// single indirect descriptor (2.8.5, 2.8.19).
func (r *packedRing) take(q *Queue, c *Chain, d desc) error {
	if d.flags&flagIndirect == 0 {
		return c.add(q.mem, d, q.limit)
	}
	if c.slots > 1 || d.flags&flagNext != 0 {
		return fmt.Errorf("%w: mixed with direct descriptors", ErrIndirect)
	}
	return r.indirect(q, c, d)
}

// indirect copies all of d's table into c. In it, flags other than WRITE and
// the ids are reserved and ignored (2.8.7), so tables cannot nest.
func (r *packedRing) indirect(q *Queue, c *Chain, d desc) error {
	table, err := q.table(d)
	if err != nil {
		return err
	}
	for ; len(table) > 0; table = table[descSize:] {
		if err := c.add(q.mem, packedDesc(table, binary.LittleEndian.Uint32(table[packedWord:])), q.limit); err != nil {
			return err
		}
	}
	return nil
}

// push writes one used descriptor for the whole list, in the order of
// completion, and skips as many slots as the list had (2.8.6). The slot's word
// belongs to the device until it is stored: the driver gave the slot away.
func (r *packedRing) push(q *Queue, c *Chain, written uint32) {
	off := int(r.used.slot) * descSize
	flags := uint32(0)
	if r.used.wrap {
		flags = flagAvail | flagUsed
	}
	if written > 0 {
		flags |= flagWrite // 2.8.3: some bytes were written
	}
	binary.LittleEndian.PutUint32(r.ring.bytes(off+packedLen, 4), written)
	r.ring.store32(off+packedWord, uint32(c.head)|flags<<16)
	if q.cfg.LogUsed {
		q.mark(r.ringGPA+uint64(off)+packedLen, descSize-packedLen)
	}
	r.used = r.used.advance(c.slots, r.size)
	r.calls.pushed(uint32(c.slots))
}

// needCall: 2.8.10. One load gets offset and flags, so they belong together.
// A reserved value counts as "enable": an unwanted call is harmless.
func (r *packedRing) needCall() bool {
	n, first := r.calls.take()
	if n == 0 {
		return false
	}
	event := r.driver.load32(0)
	switch event >> 16 & 3 {
	case eventDisable:
		return false
	case eventDesc:
		if !r.eventIdx || first || n > uint32(r.size) {
			return true
		}
		at := decodePosition(uint16(event))
		if at.slot >= r.size {
			return true
		}
		behind := r.used.since(at, r.size)
		return behind >= 1 && behind <= n // the slot is among the n last ones
	}
	return true
}

func (r *packedRing) arm(q *Queue) bool {
	event := uint32(eventEnable) << 16
	if r.eventIdx {
		event = uint32(r.avail.encode()) | eventDesc<<16
	}
	r.device.store32(0, event)
	q.markDevice(0, eventSize)
	return r.inFlight() < r.size && r.available(r.word(r.avail))
}

func (r *packedRing) disarm(q *Queue) {
	r.device.store32(0, eventDisable<<16)
	q.markDevice(0, eventSize)
}
