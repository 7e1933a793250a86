// SPDX-License-Identifier: Apache-2.0

package board

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/abi/vfiouser"
)

func TestSubmissions(t *testing.T) {
	h := newHost(t)
	h.enable()
	h.openSlot(0)
	const open, next = abi.OpSlotOpen, true
	for _, step := range []struct {
		name   string
		again  bool // open the slot again before
		entry  abi.SubmissionEntry
		status abi.Status
	}{
		{"identify", false, submission(abi.OpIdentify, 2), abi.StatusOK},
		{"execute", false, submission(abi.OpExecute, 3), abi.StatusOK},
		{"other slot", false, of(1, submission(abi.OpHealth, 0)), abi.StatusNoSlot},
		{"locality 5", false, abi.SubmissionEntry{Submission: abi.Submission{Op: abi.OpExecute, Locality: 5, Seq: 4}}, abi.StatusBadField},
		{"worker dies", false, submission(abi.OpExecute, 0xdead), abi.StatusLost},
		{"after that", false, submission(abi.OpIdentify, 5), abi.StatusLost},
		{"opened again", next, submission(abi.OpIdentify, 5), abi.StatusOK},
		{"worker answers something else", false, submission(abi.OpExecute, 0xbad), abi.StatusLost},
		{"after that too", false, submission(abi.OpExecute, 6), abi.StatusLost},
		{"and opened again", next, submission(abi.OpClose, 7), abi.StatusOK},
		{"after close", false, submission(abi.OpExecute, 8), abi.StatusLost},
	} {
		if step.again {
			h.card.awaitClosed(0)
			if c := h.admin(open, 0, []byte("sesame")); c.Status != abi.StatusOK {
				t.Fatalf("%s: open: %v", step.name, c.Status)
			}
		}
		c := h.run(1, step.entry, []byte(step.name))
		if c.Status != step.status || c.Op != step.entry.Op || c.Seq != step.entry.Seq || c.Slot != step.entry.Slot {
			t.Errorf("%s: completion %+v, want %v", step.name, c, step.status)
		}
		if got := h.answer(1, c); step.status == abi.StatusOK && got != tag(0, step.name) {
			t.Errorf("%s: answer %q", step.name, got)
		}
	}
}

// TestAdmin: a queue needs an open slot, and what is for the card goes there.
func TestAdmin(t *testing.T) {
	h := newHost(t)
	h.enable()
	sesame := []byte("sesame")
	badVector := abi.AppendQueueConfig(nil, &abi.QueueConfig{SQ: sqAt(1), CQ: cqAt(1), Entries: entries, Vector: vectors})
	for _, step := range []struct {
		name    string
		op      abi.Opcode
		slot    uint32
		payload []byte
		want    abi.Status
	}{
		{"command of the card", abi.OpSlotShow, 0, []byte("a name"), abi.StatusOK},
		{"opcode that nobody knows", 0x7f, 0, nil, abi.StatusBadOpcode},
		{"opcode of a slot", abi.OpExecute, 0, nil, abi.StatusBadOpcode},
		{"queue of a slot that is not open", abi.OpQueueCreate, 2, queueConfig(2), abi.StatusDenied},
		{"open with a wrong proof", abi.OpSlotOpen, 2, []byte("please"), abi.StatusDenied},
		{"queue after a wrong proof", abi.OpQueueCreate, 2, queueConfig(2), abi.StatusDenied},
		{"open", abi.OpSlotOpen, 2, sesame, abi.StatusOK},
		{"open twice", abi.OpSlotOpen, 2, sesame, abi.StatusInUse},
		{"queue of another slot", abi.OpQueueCreate, 1, queueConfig(1), abi.StatusDenied},
		{"queue that is none", abi.OpQueueCreate, 2, []byte("x"), abi.StatusBadField},
		{"vector outside", abi.OpQueueCreate, 2, badVector, abi.StatusBadField},
		{"queue", abi.OpQueueCreate, 2, queueConfig(2), abi.StatusOK},
		{"second queue", abi.OpQueueCreate, 2, queueConfig(2), abi.StatusInUse},
		{"delete with a payload", abi.OpQueueDelete, 2, []byte("x"), abi.StatusBadField},
		{"delete", abi.OpQueueDelete, 2, nil, abi.StatusOK},
		{"delete nothing", abi.OpQueueDelete, 2, nil, abi.StatusOK},
		{"queue after delete", abi.OpQueueCreate, 2, queueConfig(2), abi.StatusDenied},
		{"open a slot without a page", abi.OpSlotOpen, slots, sesame, abi.StatusNoSlot},
		{"queue of such a slot", abi.OpQueueCreate, slots, queueConfig(2), abi.StatusNoSlot},
		{"delete of such a slot", abi.OpQueueDelete, slots, nil, abi.StatusNoSlot},
		{"open the last slot", abi.OpSlotOpen, slots - 1, sesame, abi.StatusOK},
		{"queue of the last slot", abi.OpQueueCreate, slots - 1, queueConfig(3), abi.StatusOK},
	} {
		c := h.admin(step.op, step.slot, step.payload)
		if c.Status != step.want || c.Slot != step.slot {
			t.Errorf("%s: %v (%q), want %v", step.name, c.Status, h.answer(0, c), step.want)
		}
		if step.want == abi.StatusOK && step.op == abi.OpSlotShow && h.answer(0, c) != "a name" {
			t.Errorf("%s: answer %q", step.name, h.answer(0, c))
		}
	}
	c := h.admin(abi.OpCardIdentify, 0, nil)
	if id, err := abi.ParseCardIdentity([]byte(h.answer(0, c))); err != nil || id.Slots != slots {
		t.Errorf("card identity %+v, %v, want %d slots", id, err, slots)
	}
}

// TestSlowCommand: what takes the card long holds up nothing else, and a reset
// does not wait for it.
func TestSlowCommand(t *testing.T) {
	h := newHost(t)
	h.enable()
	h.openSlot(0)
	h.submit(0, submission(abi.OpSlotCreate, 1), nil)
	if c := h.run(1, submission(abi.OpIdentify, 1), nil); c.Status != abi.StatusOK {
		t.Errorf("identify beside a slow command: %v", c.Status)
	}
	h.restart()
	h.openSlot(0)
	if c := h.run(1, submission(abi.OpIdentify, 2), nil); c.Status != abi.StatusOK {
		t.Errorf("identify after the reset: %v", c.Status)
	}
}

// restart resets the function by its control register and enables it.
func (h *host) restart() {
	h.t.Helper()
	h.write(abi.RegControl, abi.ControlReset)
	h.tail, h.done = [1 + testSlots]uint32{}, [1 + testSlots]uint32{}
	clear(h.mem)
	h.enable()
}

func TestCancelAndReset(t *testing.T) {
	h := newHost(t)
	h.enable()
	h.openSlot(0)
	h.run(1, submission(abi.OpIdentify, 1), nil)
	h.write(abi.DoorbellOffset(1)+abi.DoorbellCancel, 1) // to an idle slot
	h.submit(1, submission(abi.OpExecute, 0x3a17), nil)
	h.write(abi.DoorbellOffset(2)+abi.DoorbellCancel, 0x3a17) // to another
	h.write(abi.DoorbellOffset(1)+abi.DoorbellCancel, 0x3a17)
	h.wait(1)
	if got := <-h.card.cancels; got != 0x3a17 || len(h.card.cancels) != 0 {
		t.Errorf("cancel of %#x, and %d more", got, len(h.card.cancels))
	}
	// Function level reset: all is as after power-up, but for the bus.
	h.must(h.c.Write(vfiouser.RegionConfig, pciDevCtl, []byte{0, devCtlReset >> 8}))
	h.card.awaitClosed(0)
	if got := h.read(abi.RegStatus) | h.read(abi.RegAdminSQ) | h.read(abi.DoorbellOffset(1)+abi.DoorbellState); got != 0 {
		t.Errorf("registers after a function reset: %#x, want zero", got)
	}
	b := make([]byte, 2)
	if err := h.c.Read(vfiouser.RegionConfig, pciCommand, b); err != nil || b[0] != 0 {
		t.Errorf("command register after a function reset: %x, %v, want zero", b, err)
	}
	h.must(h.c.Write(vfiouser.RegionConfig, pciCommand, []byte{6, 0}))
	h.restart()
	h.openSlot(0)
	if c := h.run(1, submission(abi.OpIdentify, 1), nil); c.Status != abi.StatusOK {
		t.Errorf("identify after a reset: %v", c.Status)
	}
}

func TestConfigSpace(t *testing.T) {
	h := newHost(t)
	h.must(h.c.Write(vfiouser.RegionConfig, 0, make([]byte, 4)))
	h.must(h.c.Write(vfiouser.RegionConfig, pciBAR0, []byte{0xff, 0xff, 0xff, 0xff}))
	b := make([]byte, configSize)
	h.must(h.c.Read(vfiouser.RegionConfig, 0, b))
	le := binary.LittleEndian
	if v, d := le.Uint16(b), le.Uint16(b[2:]); v != ExperimentalIDs.Vendor || d != ExperimentalIDs.Device {
		t.Errorf("ids are %04x:%04x", v, d)
	}
	if got, want := le.Uint32(b[pciBAR0:]), ^uint32(abi.BarSize(slots)-1); got != want {
		t.Errorf("BAR 0 sizes as %#x, want %#x", got, want)
	}
	var caps []byte
	for at := b[0x34]; at != 0 && len(caps) < 8; at = b[at+1] {
		caps = append(caps, b[at])
	}
	if string(caps) != "\x11\x10" {
		t.Errorf("capabilities %x, want MSI-X and PCI Express", caps)
	}
	got := abi.ParseCapabilities(uint64(h.read(abi.RegCap)) | uint64(h.read(abi.RegCap+4))<<32)
	if got.Slots != slots || got.Vectors != vectors {
		t.Errorf("capabilities %+v", got)
	}
}

func TestMemoryRanges(t *testing.T) {
	h := newHost(t)
	overlap := vfiouser.DMAMap{Flags: 3, Address: memoryEnd - 1, Size: abi.PageSize}
	if err := h.c.MapDMA(overlap, h.fd); !errors.Is(err, unix.EEXIST) {
		t.Errorf("map over another: %v, want EEXIST", err)
	}
	crooked := vfiouser.DMAMap{Flags: 3, Address: memoryEnd + 1, Size: abi.PageSize}
	if err := h.c.MapDMA(crooked, h.fd); !errors.Is(err, unix.EINVAL) {
		t.Errorf("map that is not of whole pages: %v, want EINVAL", err)
	}
	if err := h.c.UnmapDMA(base, abi.PageSize); !errors.Is(err, unix.EINVAL) {
		t.Errorf("unmap of a part: %v, want EINVAL", err)
	}
	for _, size := range []uint64{1, 1 << 20, 1 << 40} { // as QEMU does at reset
		if err := h.c.UnmapDMA(1<<41, size); err != nil {
			t.Errorf("unmap of nothing: %v", err)
		}
	}
}

// TestEnable: admin queues of every size that there is, and of none other, in whole
// pages; and a card that refuses is reset to be usable.
func TestEnable(t *testing.T) {
	h := newHost(t)
	for _, tc := range []struct {
		sq, cq  uint64
		entries uint32
		want    uint32
	}{
		{sqAt(0), cqAt(0), 0, fatal(abi.FaultConfig)},
		{sqAt(0), cqAt(0), 1, fatal(abi.FaultConfig)},
		{sqAt(0), cqAt(0), 3, fatal(abi.FaultConfig)},
		{sqAt(0), cqAt(0), 2 * abi.MaxQueueEntries, fatal(abi.FaultConfig)},
		{sqAt(0), cqAt(0), 1<<16 | 4, fatal(abi.FaultConfig)},
		{sqAt(0) + 64, cqAt(0), 4, fatal(abi.FaultConfig)},
		{sqAt(0), cqAt(0) + 32, 4, fatal(abi.FaultConfig)},
		{sqAt(0), cqAt(0), 2, abi.StatusReady},
		{sqAt(0), cqAt(0), abi.MaxQueueEntries, abi.StatusReady},
	} {
		h.write(abi.RegControl, abi.ControlReset)
		if got := h.read(abi.RegStatus) | h.read(abi.RegAdminSQ) | h.read(abi.RegAdminEntries); got != 0 {
			t.Errorf("registers after a reset: %#x, want zero", got)
		}
		h.write(abi.RegAdminSQ, uint32(tc.sq))
		h.write(abi.RegAdminCQ, uint32(tc.cq))
		h.write(abi.RegAdminEntries, tc.entries)
		h.write(abi.RegControl, abi.ControlEnable)
		if got := h.read(abi.RegStatus); got != tc.want {
			t.Errorf("status with queues at %#x and %#x of %d: %#x, want %#x", tc.sq, tc.cq, tc.entries, got, tc.want)
		}
	}
	h.restart()
	h.openSlot(0)
}

func fatal(f abi.Fault) uint32 { return abi.StatusFatal | uint32(f)<<8 }

// TestAdminQueueStops: with the admin queue stopped the card says so, and slots go on.
func TestAdminQueueStops(t *testing.T) {
	for want, stop := range map[abi.Fault]func(h *host){
		abi.FaultDoorbell: func(h *host) { h.write(abi.DoorbellOffset(0)+abi.DoorbellTail, entries) },
		abi.FaultAddress: func(h *host) {
			e := submission(abi.OpSlotShow, 1)
			e.AnswerAt = memoryEnd
			h.submit(0, e, nil)
		},
	} {
		h := newHost(t)
		h.enable()
		h.openSlot(0)
		stop(h)
		h.waitEvent(0)
		if got := h.read(abi.RegStatus); got != fatal(want) {
			t.Errorf("status %#x, want %#x", got, fatal(want))
		}
		if c := h.run(1, submission(abi.OpIdentify, 1), nil); c.Status != abi.StatusOK {
			t.Errorf("slot beside a stopped admin queue: %v", c.Status)
		}
		h.restart()
		h.openSlot(0)
	}
}

// TestBusMasterOff: without bus mastering the card takes and writes nothing and does not
// interrupt; with it, it goes on with what is there.
func TestBusMasterOff(t *testing.T) {
	h := newHost(t)
	h.enable()
	h.openSlot(0)
	h.must(h.c.Write(vfiouser.RegionConfig, pciCommand, []byte{2, 0}))
	before := bytes.Clone(h.mem[cqAt(1)-base:][:abi.PageSize])
	h.submit(1, submission(abi.OpIdentify, 1), nil)
	h.read(abi.RegStatus)
	if after := h.mem[cqAt(1)-base:][:abi.PageSize]; !bytes.Equal(after, before) {
		t.Error("the card has written without being bus master")
	}
	h.must(h.c.Write(vfiouser.RegionConfig, pciCommand, []byte{6, 0}))
	if c := h.wait(1); c.Status != abi.StatusOK {
		t.Errorf("identify with bus mastering on again: %v", c.Status)
	}
}

// TestBusMasterOffUnderWay: what a slot answers while bus mastering is off is given when
// it is on again, and nothing is written before.
func TestBusMasterOffUnderWay(t *testing.T) {
	h := newHost(t)
	h.enable()
	h.openSlot(0)
	h.submit(1, submission(abi.OpExecute, 0x3a17), nil) // until it is canceled
	h.must(h.c.Write(vfiouser.RegionConfig, pciCommand, []byte{2, 0}))
	before := bytes.Clone(h.mem[cqAt(1)-base:][:2*abi.PageSize])
	h.write(abi.DoorbellOffset(1)+abi.DoorbellCancel, 0x3a17)
	<-h.card.cancels
	for range 100 { // the answer comes meanwhile
		h.read(abi.RegStatus)
	}
	if after := h.mem[cqAt(1)-base:][:2*abi.PageSize]; !bytes.Equal(after, before) {
		t.Error("the card has written without being bus master")
	}
	h.must(h.c.Write(vfiouser.RegionConfig, pciCommand, []byte{6, 0}))
	if c := h.wait(1); c.Status != abi.StatusOK || c.Seq != 0x3a17 {
		t.Errorf("the answer with bus mastering on again: %+v", c)
	}
}
