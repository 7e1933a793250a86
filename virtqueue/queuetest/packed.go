// SPDX-License-Identifier: Apache-2.0

package queuetest

// packed is the driver's end of a packed ring (VIRTIO 1.3 2.8).
type packed struct {
	d         *Driver
	ids       []uint16 // free buffer ids
	freeSlots int
	next      spot // where the next descriptor goes
	seen      spot // where the next used descriptor will appear
	added     int  // slots filled since needKick was last asked
}

// spot is a slot of the ring and the wrap counter of its lap (2.8.1).
type spot struct {
	slot int
	wrap bool
}

func newPacked(d *Driver) *packed {
	at := spot{int(d.o.Base & 0x7fff), d.o.Base>>15&1 != 0}
	p := &packed{d: d, next: at, seen: at, freeSlots: int(d.o.Size)}
	for i := range int(d.o.Size) {
		p.ids = append(p.ids, uint16(int(d.o.Size)-1-i))
		p.idle(i, at)
	}
	return p
}

// idle writes slot i as a driver's past at position at would have left it: used
// in this lap if it is before at, in the previous lap if not.
func (p *packed) idle(i int, at spot) {
	lap := at.wrap == (i < at.slot)
	if lap {
		p.d.SetDesc(i, Desc{Flags: FlagAvail | FlagUsed})
	}
}

func (p *packed) free() int { return min(p.freeSlots, len(p.ids)) }

func (p *packed) place(c *chain, descs []Desc) uint16 {
	id := p.ids[len(p.ids)-1]
	p.ids = p.ids[:len(p.ids)-1]
	for i := range descs {
		if i+1 < len(descs) {
			descs[i].Flags |= FlagNext
		} else {
			descs[i].Link = id
		}
	}
	c.slots = len(descs)
	p.freeSlots -= len(descs)
	p.offer(descs)
	return id
}

// offer writes descs into the next slots, the first one last (2.8.6), with the
// flags that make them available.
func (p *packed) offer(descs []Desc) {
	first := p.next
	var firstDesc Desc
	for i, desc := range descs {
		desc.Flags |= p.next.availFlags()
		if i == 0 {
			firstDesc = desc
		} else {
			p.d.SetDesc(p.next.slot, desc)
		}
		p.next = p.next.plus(1, p.d.o.Size)
	}
	p.d.SetDesc(first.slot, firstDesc)
	p.added += len(descs)
}

func (p *packed) used() (uint16, uint32, bool) {
	id, flags := p.d.halves(p.d.lay.Desc + p.seen.slot*descSize + 12)
	if (flags&FlagUsed != 0) != p.seen.wrap || (flags&FlagAvail != 0) != p.seen.wrap {
		return 0, 0, false
	}
	if flags&FlagWrite == 0 {
		return id, 0, true // the length is reserved then (2.8.4)
	}
	return id, p.d.Desc(p.seen.slot).Len, true
}

func (p *packed) reap(id uint16, c *chain) {
	p.seen = p.seen.plus(c.slots, p.d.o.Size)
	p.freeSlots += c.slots
	p.ids = append(p.ids, id)
}

func (p *packed) needKick() bool {
	added := p.added
	p.added = 0
	if added == 0 {
		return false
	}
	at, flags := p.d.DeviceEvent()
	if flags != EventDesc {
		return flags != EventDisable
	}
	event := spot{int(at & 0x7fff), at>>15 != 0}
	for i := 1; i <= added; i++ { // is the event's slot among the added ones?
		if p.next.minus(i, p.d.o.Size) == event {
			return true
		}
	}
	return false
}

func (p *packed) armCalls() {
	if p.d.o.EventIdx {
		p.d.SetDriverEvent(p.seen.encode(), EventDesc)
		return
	}
	p.d.SetDriverEvent(0, EventEnable)
}

func (p *packed) disarmCalls() { p.d.SetDriverEvent(0, EventDisable) }

func (s spot) encode() uint16 {
	if s.wrap {
		return uint16(s.slot) | 1<<15
	}
	return uint16(s.slot)
}

func (s spot) availFlags() uint16 {
	if s.wrap {
		return FlagAvail
	}
	return FlagUsed
}

// plus moves n slots on, minus n slots back; n is at most the ring's size.
func (s spot) plus(n int, size uint16) spot {
	s.slot += n
	if s.slot >= int(size) {
		s.slot -= int(size)
		s.wrap = !s.wrap
	}
	return s
}

func (s spot) minus(n int, size uint16) spot {
	s.slot -= n
	if s.slot < 0 {
		s.slot += int(size)
		s.wrap = !s.wrap
	}
	return s
}

// The methods below are for packed rings only; on a split ring they panic.

// NextSlot returns where the driver's next descriptor goes, and the Driver Ring
// Wrap Counter.
func (d *Driver) NextSlot() (slot int, wrap bool) {
	p := d.ring.(*packed)
	return p.next.slot, p.next.wrap
}

// SetDriverEvent writes the driver event suppression structure: a position as
// offset and wrap bit, and flags.
func (d *Driver) SetDriverEvent(at, flags uint16) { d.setHalves(d.lay.Driver, at, flags) }

// DeviceEvent reads the device event suppression structure.
func (d *Driver) DeviceEvent() (at, flags uint16) { return d.halves(d.lay.Device) }
