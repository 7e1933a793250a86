// SPDX-License-Identifier: Apache-2.0

package queuetest

import "encoding/binary"

// split is the driver's end of a split ring (VIRTIO 1.3 2.7).
type split struct {
	d        *Driver
	freeList []uint16
	avail    uint16 // next available index
	seen     uint16 // next used index to look at
	flags    uint16 // available ring flags
	kicked   uint16 // avail when needKick was last asked
}

func newSplit(d *Driver) *split {
	s := &split{d: d, avail: uint16(d.o.Base), seen: uint16(d.o.Base), kicked: uint16(d.o.Base)}
	for i := int(d.o.Size) - 1; i >= 0; i-- {
		s.freeList = append(s.freeList, uint16(i))
	}
	s.publish()
	d.setHalves(d.lay.Device, 0, s.seen)
	d.setHalf(s.usedEventAt(), s.seen)
	d.setHalves(s.availEventAt(), s.avail, 0)
	return s
}

func (s *split) free() int { return len(s.freeList) }

func (s *split) place(c *chain, descs []Desc) uint16 {
	keep := len(s.freeList) - len(descs)
	c.descs = append(c.descs, s.freeList[keep:]...)
	s.freeList = s.freeList[:keep]
	for i, desc := range descs {
		if i+1 < len(descs) {
			desc.Flags |= FlagNext
			desc.Link = c.descs[i+1]
		}
		s.d.SetDesc(int(c.descs[i]), desc)
	}
	s.offer(c.descs[0])
	return c.descs[0]
}

// offer publishes a chain by its head.
func (s *split) offer(head uint16) {
	s.d.SetAvail(s.avail, head)
	s.avail++
	s.publish()
}

// publish stores flags and idx of the available ring; they share a word.
func (s *split) publish() { s.d.setHalves(s.d.lay.Driver, s.flags, s.avail) }

func (s *split) used() (uint16, uint32, bool) {
	idx := s.d.UsedIdx()
	if idx == s.seen {
		return 0, 0, false
	}
	if n := int(idx - s.seen); n > int(s.d.o.Size) {
		s.d.fail("used index moved by %d in a ring of %d", n, s.d.o.Size)
		return 0, 0, false
	}
	id, written := s.d.UsedElem(s.seen)
	if id >= uint32(s.d.o.Size) {
		s.d.fail("used entry names descriptor %d of %d", id, s.d.o.Size)
		return 0, 0, false
	}
	return uint16(id), written, true
}

func (s *split) reap(_ uint16, c *chain) {
	s.seen++
	s.freeList = append(s.freeList, c.descs...)
}

func (s *split) needKick() bool {
	added := s.avail - s.kicked
	from := s.kicked
	s.kicked = s.avail
	if added == 0 {
		return false
	}
	if !s.d.o.EventIdx {
		return s.d.UsedFlags()&UsedNoNotify == 0
	}
	return s.d.AvailEvent()-from < added // the entry at avail_event is among the added
}

func (s *split) armCalls() {
	if s.d.o.EventIdx {
		s.d.SetUsedEvent(s.seen)
		return
	}
	s.flags = 0
	s.publish()
}

func (s *split) disarmCalls() {
	if !s.d.o.EventIdx {
		s.flags = AvailNoInterrupt
		s.publish()
	}
}

func (s *split) usedEventAt() int  { return s.d.lay.Driver + 4 + 2*int(s.d.o.Size) }
func (s *split) availEventAt() int { return s.d.lay.Device + 4 + 8*int(s.d.o.Size) }

// The methods below are for split rings only; on a packed ring they panic.

func (d *Driver) split() *split { return d.ring.(*split) }

// SetAvail writes the available ring entry of index idx (modulo Queue Size).
func (d *Driver) SetAvail(idx, head uint16) {
	d.setHalf(d.lay.Driver+4+2*int(idx%d.o.Size), head)
}

// AvailIdx returns avail.idx as the driver would next publish it.
func (d *Driver) AvailIdx() uint16 { return d.split().avail }

// SetAvailIdx publishes avail.idx, and the driver goes on from there.
func (d *Driver) SetAvailIdx(idx uint16) {
	d.split().avail = idx
	d.split().publish()
}

// SetAvailFlags publishes the flags of the available ring.
func (d *Driver) SetAvailFlags(flags uint16) {
	d.split().flags = flags
	d.split().publish()
}

// SetUsedEvent asks for a call when the device uses the entry of index idx.
func (d *Driver) SetUsedEvent(idx uint16) { d.setHalf(d.split().usedEventAt(), idx) }

// UsedIdx reads used.idx.
func (d *Driver) UsedIdx() uint16 { _, idx := d.halves(d.lay.Device); return idx }

// UsedFlags reads the flags of the used ring.
func (d *Driver) UsedFlags() uint16 { flags, _ := d.halves(d.lay.Device); return flags }

// SetUsed overwrites flags and idx of the used ring, which only the device may do.
func (d *Driver) SetUsed(flags, idx uint16) { d.setHalves(d.lay.Device, flags, idx) }

// UsedElem reads the used ring entry of index idx (modulo Queue Size).
func (d *Driver) UsedElem(idx uint16) (id, written uint32) {
	at := d.lay.Device + 4 + 8*int(idx%d.o.Size)
	return binary.LittleEndian.Uint32(d.o.Mem[at:]), binary.LittleEndian.Uint32(d.o.Mem[at+4:])
}

// AvailEvent reads avail_event.
func (d *Driver) AvailEvent() uint16 { v, _ := d.halves(d.split().availEventAt()); return v }
