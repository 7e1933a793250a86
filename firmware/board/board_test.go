// SPDX-License-Identifier: Apache-2.0

package board

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/abi/vfiouser"
)

// hang guards every wait.
const hang = 30 * time.Second

// echo is a worker that answers each submission with its payload, dies over
// number 0xdead and answers 0xbad with nonsense.
type echo struct {
	in      chan []byte
	ended   chan struct{}
	cancels chan uint64
}

func newEcho() *echo {
	return &echo{in: make(chan []byte, 1), ended: make(chan struct{}), cancels: make(chan uint64, 8)}
}

func (w *echo) Send(msg []byte) error {
	w.in <- append([]byte(nil), msg...)
	return nil
}

func (w *echo) Receive(b []byte) (int, error) {
	select {
	case <-w.ended:
		return 0, io.EOF
	case msg := <-w.in:
		s, err := abi.ParseSubmission(msg)
		if err != nil {
			return 0, err
		}
		if s.Seq == 0xdead {
			return 0, io.EOF
		}
		if s.Seq == 0xbad {
			s.Seq++ // a completion of nothing
		}
		return len(abi.AppendCompletion(b[:0], &abi.Completion{Op: s.Op, Seq: s.Seq, Slot: s.Slot, Payload: s.Payload})), nil
	}
}

func (w *echo) Cancel(seq uint64) { w.cancels <- seq }
func (w *echo) Close()            { w.Kill() }
func (w *echo) Kill() {
	select {
	case <-w.ended:
	default:
		close(w.ended)
	}
}

// Pages of the host's memory. Each is where its number says.
const (
	base    = 0x100000
	adminSQ = base + iota*abi.PageSize
	adminCQ
	slotSQ
	slotCQ
	payloadAt
	answerAt
	memoryEnd
)

// host is a client of a card, with memory and events.
type host struct {
	t      *testing.T
	c      *vfiouser.Client
	mem    []byte
	fd     int
	events [vectors]int
	tail   [vectors]uint32
	done   [vectors]uint32
	worker atomic.Pointer[echo] // the last one started
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{t: t}
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var socks [2]*net.UnixConn
	for i, n := range p {
		f := os.NewFile(uintptr(n), "socket")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		socks[i] = c.(*net.UnixConn)
	}
	card := New(Config{Start: func() (Worker, error) {
		w := newEcho()
		h.worker.Store(w)
		return w, nil
	}})
	ended := make(chan error, 1)
	go func() { ended <- card.ServeConn(socks[1]) }()
	if h.c, err = vfiouser.NewClient(socks[0], hang, nil); err != nil {
		t.Fatal(err)
	}
	if h.fd, err = unix.MemfdCreate("test", unix.MFD_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	if err := unix.Ftruncate(h.fd, memoryEnd-base); err != nil {
		t.Fatal(err)
	}
	if h.mem, err = unix.Mmap(h.fd, 0, memoryEnd-base, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		t.Fatal(err)
	}
	for i := range h.events {
		if h.events[i], err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		h.c.Close()
		if err := <-ended; err != nil {
			t.Errorf("session: %v", err)
		}
		unix.Munmap(h.mem)
		for _, n := range append(h.events[:], h.fd) {
			unix.Close(n)
		}
	})
	h.must(h.c.MapDMA(vfiouser.DMAMap{Flags: 3, Address: base, Size: memoryEnd - base}, h.fd))
	h.must(h.c.SetVectors(h.events[:]))
	h.must(h.c.Write(vfiouser.RegionConfig, pciCommand, []byte{6, 0}))
	return h
}

func (h *host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) write(off uint64, v uint32) {
	h.t.Helper()
	h.must(h.c.Write(vfiouser.RegionBAR0, off, binary.LittleEndian.AppendUint32(nil, v)))
}

func (h *host) read(off uint64) uint32 {
	h.t.Helper()
	b := make([]byte, 4)
	h.must(h.c.Read(vfiouser.RegionBAR0, off, b))
	return binary.LittleEndian.Uint32(b)
}

const entries = 4

// enable takes the admin queue into service, and creates the slot's.
func (h *host) enable() {
	h.t.Helper()
	h.write(abi.RegAdminSQ, adminSQ)
	h.write(abi.RegAdminCQ, adminCQ)
	h.write(abi.RegAdminEntries, entries)
	h.write(abi.RegControl, abi.ControlEnable)
	if got := h.read(abi.RegStatus); got != abi.StatusReady {
		h.t.Fatalf("status = %#x, want ready", got)
	}
	if c := h.run(0, abi.SubmissionEntry{Submission: abi.Submission{Op: abi.OpQueueCreate}, AnswerAt: answerAt},
		abi.AppendQueueConfig(nil, &abi.QueueConfig{SQ: slotSQ, CQ: slotCQ, Entries: entries, Vector: 1})); c.Status != abi.StatusOK {
		h.t.Fatalf("create queue: %v", c.Status)
	}
}

// submit puts an entry on a queue and rings.
func (h *host) submit(queue int, e abi.SubmissionEntry, payload []byte) {
	h.t.Helper()
	if len(payload) > 0 {
		e.Length, e.PayloadAt = uint32(len(payload)), payloadAt
		copy(h.mem[payloadAt-base:], payload)
	}
	sq := []int{adminSQ, slotSQ}[queue] - base
	abi.AppendSubmissionEntry(h.mem[sq:sq+int(h.tail[queue])*abi.SubmissionEntrySize], &e)
	h.tail[queue] = (h.tail[queue] + 1) % entries
	h.write(abi.DoorbellOffset(queue)+abi.DoorbellTail, h.tail[queue])
}

// run submits an entry and waits for its completion.
func (h *host) run(queue int, e abi.SubmissionEntry, payload []byte) abi.CompletionEntry {
	h.t.Helper()
	h.submit(queue, e, payload)
	return h.wait(queue)
}

func (h *host) wait(queue int) abi.CompletionEntry {
	h.t.Helper()
	h.waitEvent(queue)
	cq := []int{adminCQ, slotCQ}[queue] - base
	at := cq + int(h.done[queue]%entries)*abi.CompletionEntrySize
	c, err := abi.ParseCompletionEntry(h.mem[at : at+abi.CompletionEntrySize])
	if err != nil || c.Phase != (h.done[queue]/entries%2 == 0) {
		h.t.Fatalf("completion %d of queue %d = %+v, %v", h.done[queue], queue, c, err)
	}
	h.done[queue]++
	return c
}

func (h *host) waitEvent(queue int) {
	h.t.Helper()
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(h.events[queue]), Events: unix.POLLIN}}, int(hang.Milliseconds()))
	if n != 1 {
		h.t.Fatalf("no interrupt of queue %d: %v", queue, err)
	}
	var count [8]byte
	unix.Read(h.events[queue], count[:])
}

func submission(op abi.Opcode, seq uint64) abi.SubmissionEntry {
	return abi.SubmissionEntry{Submission: abi.Submission{Op: op, Seq: seq}, AnswerAt: answerAt}
}

func TestSubmissions(t *testing.T) {
	h := newHost(t)
	h.enable()
	for i, step := range []struct {
		name  string
		queue int
		entry abi.SubmissionEntry
		want  abi.Status
	}{
		{"execute without a worker", 1, submission(abi.OpExecute, 1), abi.StatusLost},
		{"identify", 1, submission(abi.OpIdentify, 2), abi.StatusOK},
		{"execute", 1, submission(abi.OpExecute, 3), abi.StatusOK},
		{"other slot", 1, abi.SubmissionEntry{Submission: abi.Submission{Op: abi.OpHealth, Slot: 1}, AnswerAt: answerAt}, abi.StatusNoSlot},
		{"locality 5", 1, abi.SubmissionEntry{Submission: abi.Submission{Op: abi.OpExecute, Locality: 5, Seq: 4}, AnswerAt: answerAt}, abi.StatusBadField},
		{"worker dies", 1, submission(abi.OpExecute, 0xdead), abi.StatusLost},
		{"identify again", 1, submission(abi.OpIdentify, 5), abi.StatusOK},
		{"worker answers something else", 1, submission(abi.OpExecute, 0xbad), abi.StatusLost},
		{"after that", 1, submission(abi.OpExecute, 6), abi.StatusLost},
		{"second queue", 0, submission(abi.OpQueueCreate, 0), abi.StatusBadField},
		{"queue of slot 1", 0, abi.SubmissionEntry{Submission: abi.Submission{Op: abi.OpQueueDelete, Slot: 1}, AnswerAt: answerAt}, abi.StatusNoSlot},
		{"execute on the admin queue", 0, submission(abi.OpExecute, 0), abi.StatusBadOpcode},
	} {
		payload := []byte{byte(i), 2, 3}
		if step.entry.Op == abi.OpQueueDelete {
			payload = nil
		}
		c := h.run(step.queue, step.entry, payload)
		if c.Status != step.want || c.Op != step.entry.Op || c.Seq != step.entry.Seq || c.Slot != step.entry.Slot {
			t.Errorf("%s: completion %+v, want %v", step.name, c, step.want)
		}
		if got := h.mem[answerAt-base]; step.want == abi.StatusOK && (c.Length != 3 || got != byte(i)) {
			t.Errorf("%s: answer of %d bytes begins %d", step.name, c.Length, got)
		}
	}
}

// TestFaults: what the card cannot do safely stops the one queue, with an
// interrupt, and a queue that is made again works.
func TestFaults(t *testing.T) {
	for _, tc := range []struct {
		name string
		do   func(h *host)
		want abi.Fault
	}{
		{"tail outside", func(h *host) { h.write(abi.DoorbellOffset(1)+abi.DoorbellTail, entries) }, abi.FaultDoorbell},
		{"answer outside", func(h *host) {
			e := submission(abi.OpIdentify, 1)
			e.AnswerAt = memoryEnd
			h.submit(1, e, nil)
		}, abi.FaultAddress},
		{"memory unmapped", func(h *host) {
			h.must(h.c.UnmapDMA(0, 1<<32))
			h.submit(1, submission(abi.OpIdentify, 1), nil)
		}, abi.FaultAddress},
		{"file made shorter", func(h *host) {
			h.submit(1, submission(abi.OpIdentify, 1), nil)
			h.wait(1)
			h.must(unix.Ftruncate(h.fd, 0))
			h.write(abi.DoorbellOffset(1)+abi.DoorbellTail, 2)
		}, abi.FaultAddress},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := newHost(t)
			h.enable()
			tc.do(h)
			h.waitEvent(1)
			got := abi.ParseQueueState(h.read(abi.DoorbellOffset(1) + abi.DoorbellState))
			if want := (abi.QueueState{Life: abi.QueueFaulted, Fault: tc.want}); got != want {
				t.Errorf("queue state %+v, want %+v", got, want)
			}
			if got := h.read(abi.RegStatus); got != abi.StatusReady {
				t.Errorf("status = %#x, want ready: only the slot's queue is stopped", got)
			}
		})
	}
}

func TestCancelAndReset(t *testing.T) {
	h := newHost(t)
	h.enable()
	h.run(1, submission(abi.OpIdentify, 1), nil)
	h.write(abi.DoorbellOffset(1)+abi.DoorbellCancel, 1)
	select {
	case seq := <-h.worker.Load().cancels:
		t.Errorf("cancel %d reached an idle worker", seq)
	default:
	}
	// Function level reset: all is as after power-up, but for the bus.
	h.must(h.c.Write(vfiouser.RegionConfig, pciDevCtl, []byte{0, devCtlReset >> 8}))
	<-h.worker.Load().ended
	if got := h.read(abi.RegStatus) | h.read(abi.RegAdminSQ) | h.read(abi.DoorbellOffset(1)+abi.DoorbellState); got != 0 {
		t.Errorf("registers after a function reset: %#x, want zero", got)
	}
	b := make([]byte, 2)
	if err := h.c.Read(vfiouser.RegionConfig, pciCommand, b); err != nil || b[0] != 0 {
		t.Errorf("command register after a function reset: %x, %v, want zero", b, err)
	}
	h.tail, h.done = [vectors]uint32{}, [vectors]uint32{}
	clear(h.mem)
	h.must(h.c.Write(vfiouser.RegionConfig, pciCommand, []byte{6, 0}))
	h.enable()
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
	if got, want := le.Uint32(b[pciBAR0:]), ^uint32(abi.BarSize(1)-1); got != want {
		t.Errorf("BAR 0 sizes as %#x, want %#x", got, want)
	}
	var caps []byte
	for at := b[0x34]; at != 0 && len(caps) < 8; at = b[at+1] {
		caps = append(caps, b[at])
	}
	if string(caps) != "\x11\x10" {
		t.Errorf("capabilities %x, want MSI-X and PCI Express", caps)
	}
}

func TestMemoryRanges(t *testing.T) {
	h := newHost(t)
	overlap := vfiouser.DMAMap{Flags: 3, Address: memoryEnd - 1, Size: abi.PageSize}
	if err := h.c.MapDMA(overlap, h.fd); !errors.Is(err, unix.EEXIST) {
		t.Errorf("map over another: %v, want EEXIST", err)
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
