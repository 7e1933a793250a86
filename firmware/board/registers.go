// SPDX-License-Identifier: Apache-2.0

package board

import (
	"encoding/binary"

	"hwvtpm/coproc/abi"
)

// adminRegisters are the registers that the client writes for later.
type adminRegisters struct {
	sq, cq  uint64
	entries uint32
}

// readBAR fills b from BAR 0, whatever its alignment: reads have no effect.
func (c *Card) readBAR(off uint64, b []byte) {
	var word [4]byte
	for i := 0; i < len(b); {
		at := off + uint64(i)
		binary.LittleEndian.PutUint32(word[:], c.readWord(at&^3))
		i += copy(b[i:], word[at&3:])
	}
}

func (c *Card) readWord(off uint64) uint32 {
	if w := c.tableWord(off); w != nil {
		return binary.LittleEndian.Uint32(w)
	}
	caps := abi.Capabilities{MaxEntries: abi.MaxQueueEntries, Slots: slots, Vectors: vectors, ReadyTimeout: 10}.Word()
	switch off {
	case abi.RegMagic:
		return abi.RegistersMagic
	case abi.RegVersion:
		return abi.RegistersVersion
	case abi.RegCap:
		return uint32(caps)
	case abi.RegCap + 4:
		return uint32(caps >> 32)
	case abi.RegControl:
		return c.control
	case abi.RegStatus:
		return c.status()
	case abi.RegAdminSQ:
		return uint32(c.reg.sq)
	case abi.RegAdminSQ + 4:
		return uint32(c.reg.sq >> 32)
	case abi.RegAdminCQ:
		return uint32(c.reg.cq)
	case abi.RegAdminCQ + 4:
		return uint32(c.reg.cq >> 32)
	case abi.RegAdminEntries:
		return c.reg.entries
	}
	if q, reg, ok := doorbell(off); ok && reg == abi.DoorbellState {
		return c.queueOf(q).state.Word()
	}
	return 0
}

// doorbell tells which queue's doorbell page an offset is in, and where.
func doorbell(off uint64) (queue, reg uint64, ok bool) {
	if off < abi.BarDoorbells {
		return 0, 0, false
	}
	off -= abi.BarDoorbells
	queue, reg = off/abi.DoorbellStride, off%abi.DoorbellStride
	return queue, reg, queue <= slots
}

func (c *Card) status() uint32 {
	if c.fatal != abi.FaultNone {
		return abi.StatusFatal | uint32(c.fatal)<<8
	}
	if c.control&abi.ControlEnable != 0 {
		return abi.StatusReady
	}
	return 0
}

// writeBAR takes writes of one or two aligned words, and the MSI-X table.
func (c *Card) writeBAR(off uint64, b []byte) {
	if off%4 != 0 || len(b) != 4 && len(b) != 8 {
		return
	}
	for i := 0; i < len(b); i += 4 {
		at := off + uint64(i)
		if w := c.tableWord(at); w != nil {
			copy(w, b[i:i+4])
			continue
		}
		c.writeWord(at, binary.LittleEndian.Uint32(b[i:]))
	}
}

// tableWord gives the word of the MSI-X table at an aligned offset; nil if it is not
// of the table.
func (c *Card) tableWord(off uint64) []byte {
	if off < abi.BarMSIXTable || off >= abi.BarMSIXTable+uint64(len(c.table)) {
		return nil
	}
	return c.table[off-abi.BarMSIXTable:][:4]
}

func (c *Card) writeWord(off uint64, v uint32) {
	low := func(old uint64) uint64 { return old&^0xffffffff | uint64(v) }
	high := func(old uint64) uint64 { return old&0xffffffff | uint64(v)<<32 }
	switch off {
	case abi.RegControl:
		c.writeControl(v)
	case abi.RegAdminSQ:
		c.reg.sq = low(c.reg.sq)
	case abi.RegAdminSQ + 4:
		c.reg.sq = high(c.reg.sq)
	case abi.RegAdminCQ:
		c.reg.cq = low(c.reg.cq)
	case abi.RegAdminCQ + 4:
		c.reg.cq = high(c.reg.cq)
	case abi.RegAdminEntries:
		c.reg.entries = v
	default:
		c.ringDoorbell(off, v)
	}
}

func (c *Card) ringDoorbell(off uint64, v uint32) {
	q, reg, ok := doorbell(off)
	switch {
	case !ok:
	case reg == abi.DoorbellTail:
		c.ring(c.queueOf(q), v)
	case reg == abi.DoorbellCancel && q > 0:
		c.slots[q-1].cancel(v)
	}
}

func (c *Card) writeControl(v uint32) {
	was := c.control & abi.ControlEnable
	switch {
	case v&abi.ControlReset != 0:
		c.reset()
	case was != 0 && v&abi.ControlEnable == 0:
		c.stop()
	case was == 0 && v&abi.ControlEnable != 0 && c.fatal == abi.FaultNone:
		c.enable()
	}
}

// enable takes the admin queue into service.
func (c *Card) enable() {
	if (c.reg.sq|c.reg.cq)%abi.PageSize != 0 || !abi.ValidEntries(c.reg.entries) {
		c.fatal = abi.FaultConfig
		return
	}
	c.control = abi.ControlEnable
	c.office = newOffice(c.cfg.Open())
	c.admin = newQueue(0, abi.QueueConfig{SQ: c.reg.sq, CQ: c.reg.cq, Entries: uint16(c.reg.entries)})
}
