// SPDX-License-Identifier: Apache-2.0

package board

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/abi/vfiouser"
	"hwvtpm/firmware/card"
)

// hang guards every wait.
const hang = 30 * time.Second

// fake is a card. Its slots answer each submission with its payload, die over
// number 0xdead, answer 0xbad with nonsense, and keep 0x3a17 until it is
// canceled.
type fake struct {
	t        testing.TB
	cancels  chan uint64
	sessions sync.WaitGroup

	mu    sync.Mutex      // guards what follows
	open  map[uint32]bool // slots
	ended map[uint32]int  // how often a slot was closed
}

func newFake(t testing.TB) *fake {
	return &fake{t: t, cancels: make(chan uint64, 64), open: map[uint32]bool{}, ended: map[uint32]int{}}
}

type fakeSession struct{ *fake }

func (f *fake) session() Session {
	f.sessions.Add(1)
	return fakeSession{f}
}

func (s fakeSession) Close() { s.sessions.Done() }

func (s fakeSession) Do(ctx context.Context, sub *abi.Submission, dst []byte) card.Reply {
	switch sub.Op {
	case abi.OpCardIdentify:
		return card.Reply{Payload: abi.AppendCardIdentity(dst, &abi.CardIdentity{Min: 1, Max: 1, Slots: abi.MaxSlots, MaxPayload: abi.MaxPayload})}
	case abi.OpSlotCreate: // takes until the session ends
		<-ctx.Done()
		return card.Reply{Status: abi.StatusInternal}
	case abi.OpSlotShow:
		return card.Reply{Payload: append(dst, sub.Payload...)}
	case abi.OpSlotOpen:
		return s.grant(sub)
	}
	return card.Reply{Status: abi.StatusBadOpcode, Payload: append(dst, "no such command"...)}
}

// grant opens a slot for the proof "sesame".
func (s fakeSession) grant(sub *abi.Submission) card.Reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	if string(sub.Payload) != "sesame" {
		return card.Reply{Status: abi.StatusDenied}
	}
	if s.open[sub.Slot] {
		return card.Reply{Status: abi.StatusInUse}
	}
	s.open[sub.Slot] = true
	data, ctl := pair(s.t), pair(s.t)
	go s.slot(sub.Slot, data[0], ctl[0])
	return card.Reply{Grant: &card.Grant{
		Number: sub.Slot, Data: os.NewFile(uintptr(data[1]), "data"), Control: os.NewFile(uintptr(ctl[1]), "control"),
	}}
}

func pair(t testing.TB) [2]int {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Error(err)
	}
	return p
}

// slot is one slot's other end.
func (f *fake) slot(number uint32, data, ctl int) {
	defer func() {
		unix.Close(data)
		unix.Close(ctl)
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.open, number)
		f.ended[number]++
	}()
	buf := make([]byte, abi.MaxMessage)
	for {
		n, err := unix.Read(data, buf)
		if n <= 0 || err != nil {
			return
		}
		s, err := abi.ParseSubmission(buf[:n])
		if err != nil || s.Slot != 0 || s.Seq == 0xdead {
			return
		}
		if s.Seq == 0x3a17 {
			var b [abi.ControlSize]byte
			if n, _ := unix.Read(ctl, b[:]); n != len(b) {
				return
			}
			c, err := abi.ParseControl(b[:])
			if err != nil {
				f.t.Error(err)
			}
			f.cancels <- c.Arg
		}
		done := abi.Completion{Op: s.Op, Seq: s.Seq, Payload: append([]byte{byte(number)}, s.Payload...)}
		if s.Seq == 0xbad {
			done.Seq++ // a completion of nothing
		}
		unix.Write(data, abi.AppendCompletion(nil, &done))
	}
}

// awaitClosed waits until the card has noticed that a slot was closed.
func (f *fake) awaitClosed(number uint32) {
	f.t.Helper()
	for deadline := time.Now().Add(hang); ; time.Sleep(time.Millisecond) {
		f.mu.Lock()
		open := f.open[number]
		f.mu.Unlock()
		if !open {
			return
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("slot %d is still open", number)
		}
	}
}

// Pages of the host's memory: four for each queue.
const (
	base      = 0x100000
	testSlots = 4
	memoryEnd = base + (1+testSlots)*4*abi.PageSize
)

func sqAt(queue int) uint64      { return base + uint64(queue)*4*abi.PageSize }
func cqAt(queue int) uint64      { return sqAt(queue) + abi.PageSize }
func payloadAt(queue int) uint64 { return sqAt(queue) + 2*abi.PageSize }
func answerAt(queue int) uint64  { return sqAt(queue) + 3*abi.PageSize }

// host is a client of a card, with memory and events.
type host struct {
	t      *testing.T
	c      *vfiouser.Client
	card   *fake
	mem    []byte
	fd     int
	events [1 + testSlots]int
	tail   [1 + testSlots]uint32
	done   [1 + testSlots]uint32
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{t: t, card: newFake(t)}
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	h.must(err)
	var socks [2]*net.UnixConn
	for i, n := range p {
		f := os.NewFile(uintptr(n), "socket")
		c, err := net.FileConn(f)
		f.Close()
		h.must(err)
		socks[i] = c.(*net.UnixConn)
	}
	board := New(Config{Open: h.card.session})
	ended := make(chan error, 1)
	go func() { ended <- board.ServeConn(socks[1]) }()
	h.c, err = vfiouser.NewClient(socks[0], hang, nil)
	h.must(err)
	h.fd, err = unix.MemfdCreate("test", unix.MFD_CLOEXEC)
	h.must(err)
	h.must(unix.Ftruncate(h.fd, memoryEnd-base))
	h.mem, err = unix.Mmap(h.fd, 0, memoryEnd-base, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	h.must(err)
	for i := range h.events {
		h.events[i], err = unix.Eventfd(0, unix.EFD_CLOEXEC)
		h.must(err)
	}
	t.Cleanup(func() {
		h.c.Close()
		if err := <-ended; err != nil {
			t.Errorf("session: %v", err)
		}
		h.card.sessions.Wait() // all were closed
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

// enable takes the admin queue into service.
func (h *host) enable() {
	h.t.Helper()
	h.write(abi.RegAdminSQ, uint32(sqAt(0)))
	h.write(abi.RegAdminCQ, uint32(cqAt(0)))
	h.write(abi.RegAdminEntries, entries)
	h.write(abi.RegControl, abi.ControlEnable)
	if got := h.read(abi.RegStatus); got != abi.StatusReady {
		h.t.Fatalf("status = %#x, want ready", got)
	}
}

// openSlot opens a slot and gives it a queue.
func (h *host) openSlot(slot uint32) {
	h.t.Helper()
	h.card.awaitClosed(slot)
	if c := h.admin(abi.OpSlotOpen, slot, []byte("sesame")); c.Status != abi.StatusOK {
		h.t.Fatalf("open slot %d: %v", slot, c.Status)
	}
	if c := h.admin(abi.OpQueueCreate, slot, queueConfig(slot)); c.Status != abi.StatusOK {
		h.t.Fatalf("create queue of slot %d: %v", slot, c.Status)
	}
}

// queueConfig is the queue of a slot, in its own pages and with its own vector.
func queueConfig(slot uint32) []byte {
	q := 1 + int(slot)%testSlots
	return abi.AppendQueueConfig(nil, &abi.QueueConfig{SQ: sqAt(q), CQ: cqAt(q), Entries: entries, Vector: uint16(q)})
}

func (h *host) admin(op abi.Opcode, slot uint32, payload []byte) abi.CompletionEntry {
	h.t.Helper()
	return h.run(0, abi.SubmissionEntry{Submission: abi.Submission{Op: op, Slot: slot}}, payload)
}

// submit puts an entry on a queue and rings.
func (h *host) submit(queue int, e abi.SubmissionEntry, payload []byte) {
	h.t.Helper()
	if len(payload) > 0 {
		e.Length, e.PayloadAt = uint32(len(payload)), payloadAt(queue)
		copy(h.mem[payloadAt(queue)-base:], payload)
	}
	if e.AnswerAt == 0 {
		e.AnswerAt = answerAt(queue)
	}
	sq := int(sqAt(queue)) - base
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
	at := int(cqAt(queue)) - base + int(h.done[queue]%entries)*abi.CompletionEntrySize
	c, err := abi.ParseCompletionEntry(h.mem[at : at+abi.CompletionEntrySize])
	if err != nil || c.Phase != (h.done[queue]/entries%2 == 0) || int(c.Queue) != queue {
		h.t.Fatalf("completion %d of queue %d = %+v, %v", h.done[queue], queue, c, err)
	}
	h.done[queue]++
	return c
}

// answer gives the answer of the last completion of a queue.
func (h *host) answer(queue int, c abi.CompletionEntry) string {
	at := answerAt(queue) - base
	return string(h.mem[at : at+uint64(c.Length)])
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

func (h *host) state(queue int) abi.QueueState {
	h.t.Helper()
	return abi.ParseQueueState(h.read(abi.DoorbellOffset(queue) + abi.DoorbellState))
}

// submission is one for slot 0.
func submission(op abi.Opcode, seq uint64) abi.SubmissionEntry {
	return abi.SubmissionEntry{Submission: abi.Submission{Op: op, Seq: seq}}
}

// of is the same for another slot.
func of(slot uint32, e abi.SubmissionEntry) abi.SubmissionEntry {
	e.Slot = slot
	return e
}

func tag(slot uint32, text string) string { return fmt.Sprintf("%c%s", slot, text) }
