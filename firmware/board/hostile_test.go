// SPDX-License-Identifier: Apache-2.0

package board

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
)

// TestFaults: what the card cannot do safely stops the one queue, with an
// interrupt, and the others work on.
func TestFaults(t *testing.T) {
	for _, tc := range []struct {
		name   string
		do     func(h *host)
		want   abi.Fault
		others bool // have memory to work with
	}{
		{"tail outside", func(h *host) { h.write(abi.DoorbellOffset(1)+abi.DoorbellTail, entries) }, abi.FaultDoorbell, true},
		{"answer outside", func(h *host) {
			e := submission(abi.OpIdentify, 1)
			e.AnswerAt = memoryEnd
			h.submit(1, e, nil)
		}, abi.FaultAddress, true},
		{"payload at the end of all addresses", func(h *host) {
			e := submission(abi.OpIdentify, 1)
			e.Length, e.PayloadAt = abi.MaxPayload, ^uint64(abi.PageSize-1)
			h.submit(1, e, nil)
		}, abi.FaultAddress, true},
		{"memory unmapped", func(h *host) {
			h.must(h.c.UnmapDMA(0, 1<<32))
			h.submit(1, submission(abi.OpIdentify, 1), nil)
		}, abi.FaultAddress, false},
		{"file made shorter", func(h *host) {
			h.submit(1, submission(abi.OpIdentify, 1), nil)
			h.wait(1)
			h.must(unix.Ftruncate(h.fd, 0))
			h.write(abi.DoorbellOffset(1)+abi.DoorbellTail, 2)
		}, abi.FaultAddress, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := newHost(t)
			h.enable()
			h.openSlot(0)
			h.openSlot(1)
			tc.do(h)
			h.waitEvent(1)
			if got, want := h.state(1), (abi.QueueState{Life: abi.QueueFaulted, Fault: tc.want}); got != want {
				t.Errorf("queue state %+v, want %+v", got, want)
			}
			if got := h.read(abi.RegStatus); got != abi.StatusReady {
				t.Errorf("status = %#x, want ready: only the slot's queue is stopped", got)
			}
			if got, want := h.state(2), (abi.QueueState{Life: abi.QueueLive}); got != want {
				t.Errorf("state of the other slot's queue %+v, want %+v", got, want)
			}
			if !tc.others {
				return
			}
			if c := h.run(2, of(1, submission(abi.OpIdentify, 1)), nil); c.Status != abi.StatusOK {
				t.Errorf("other slot: %v", c.Status)
			}
			h.admin(abi.OpQueueDelete, 0, nil)
			h.tail[1], h.done[1] = 0, 0
			clear(h.mem[cqAt(1)-base:][:abi.PageSize])
			h.openSlot(0)
			if c := h.run(1, submission(abi.OpIdentify, 1), nil); c.Status != abi.StatusOK {
				t.Errorf("the queue made again: %v", c.Status)
			}
		})
	}
}

// TestSlotsAreApart: what runs on one queue changes no page of another, and each
// answer comes from its own slot.
func TestSlotsAreApart(t *testing.T) {
	h := newHost(t)
	h.enable()
	for slot := range uint32(testSlots) {
		h.openSlot(slot)
	}
	quiet := h.mem[sqAt(testSlots)-base:]
	before := bytes.Clone(quiet)
	for round := range 3 * entries {
		for slot := range uint32(testSlots - 1) {
			text := []byte{byte(round), byte(slot)}
			h.submit(1+int(slot), of(slot, submission(abi.OpExecute, uint64(round+1))), text)
		}
		for slot := range uint32(testSlots - 1) {
			c := h.wait(1 + int(slot))
			if got, want := h.answer(1+int(slot), c), tag(slot, string([]byte{byte(round), byte(slot)})); got != want || c.Slot != slot {
				t.Fatalf("slot %d answers %q, want %q", slot, got, want)
			}
		}
	}
	if !bytes.Equal(quiet, before) {
		t.Error("pages of a queue that was not used have changed")
	}
}

// TestSlotDies: a slot that is lost while all work costs the others nothing.
func TestSlotDies(t *testing.T) {
	h := newHost(t)
	h.enable()
	h.openSlot(0)
	h.openSlot(1)
	h.submit(2, of(1, submission(abi.OpExecute, 0x3a17)), nil) // is under way all the time
	for range 3 {
		if c := h.run(1, submission(abi.OpExecute, 0xdead), nil); c.Status != abi.StatusLost {
			t.Errorf("submission that kills: %v", c.Status)
		}
		h.admin(abi.OpQueueDelete, 0, nil)
		h.tail[1], h.done[1] = 0, 0
		clear(h.mem[cqAt(1)-base:][:abi.PageSize])
		h.openSlot(0)
	}
	h.write(abi.DoorbellOffset(2)+abi.DoorbellCancel, 0x3a17)
	if c := h.wait(2); c.Status != abi.StatusOK {
		t.Errorf("the other slot: %v", c.Status)
	}
}

// TestClientLeaves: with the client gone, all that it had open is closed, also
// what was under way.
func TestClientLeaves(t *testing.T) {
	h := newHost(t)
	h.enable()
	for slot := range uint32(testSlots) {
		h.openSlot(slot)
		h.submit(1+int(slot), of(slot, submission(abi.OpExecute, 0x3a17)), nil)
	}
	h.submit(0, submission(abi.OpSlotCreate, 1), nil)
	h.c.Close()
	for slot := range uint32(testSlots) {
		h.card.awaitClosed(slot)
	}
}

// TestWildRegisters: reads and writes anywhere in the BAR, from a client that
// follows no rule, end neither the session nor the card.
func TestWildRegisters(t *testing.T) {
	h := newHost(t)
	h.enable()
	h.openSlot(0)
	for off := uint64(abi.BarMSIXPending); off < abi.BarSize(slots); off += 0x7fc {
		h.write(off&^3, 0xffffffff)
		h.read(off &^ 3)
	}
	for q := 2; q <= slots; q++ {
		if got := h.state(q); got != (abi.QueueState{}) {
			t.Errorf("queue %d is %+v", q, got)
		}
	}
	h.restart()
	h.openSlot(0)
	if c := h.run(1, submission(abi.OpIdentify, 1), nil); c.Status != abi.StatusOK {
		t.Errorf("identify after all that: %v", c.Status)
	}
}
