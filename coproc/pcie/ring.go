// SPDX-License-Identifier: Apache-2.0

package pcie

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/internal/slot"
)

// ringEntries is the size of each queue: there is one submission at a time,
// and the rest is for the card to show that it keeps its phase.
const ringEntries = 8

// watchPeriod is how often a driver that waits looks at the queue's state: who
// resets the function behind its back sends no interrupt.
const watchPeriod = 250 * time.Millisecond

// ring is the driver's side of a queue pair. submit and wait belong to one
// goroutine at a time; end may be called by any.
type ring struct {
	t      Transport
	m      *memory // held
	number int
	event  int

	sq, cq, payload, answer []byte
	at                      [queuePages]uint64 // their IOVA

	tail, next uint32
	phase      bool
	seq        uint64               // of the admin queue's last submission
	buf        [abi.MaxPayload]byte // the last answer, copied

	mu    sync.Mutex  // held to set ended, and to use event beside wait
	ended atomic.Bool // the pages and the event may be gone
}

// newRing makes an empty ring in its pages. Its user calls release at last.
func newRing(t Transport, m *memory, number int) *ring {
	m.hold()
	r := &ring{t: t, m: m, number: number, event: m.events[number], phase: true}
	for i, p := range []*[]byte{&r.sq, &r.cq, &r.payload, &r.answer} {
		*p, r.at[i] = m.page(number, i)
		clear(*p)
	}
	return r
}

// submit hands a submission to the card.
func (r *ring) submit(sub *abi.Submission) error {
	if r.ended.Load() {
		return io.EOF
	}
	r.seq++
	e := abi.SubmissionEntry{Submission: *r.stamp(sub), Length: uint32(len(sub.Payload)), AnswerAt: r.at[pageAnswer]}
	if e.Length > abi.MaxPayload {
		return fmt.Errorf("payload of %d bytes: %w", e.Length, abi.ErrMalformed)
	}
	if e.Length > 0 {
		e.PayloadAt = r.at[pagePayload]
		copy(r.payload, sub.Payload)
	}
	abi.AppendSubmissionEntry(r.sq[:r.tail*abi.SubmissionEntrySize], &e)
	r.tail = (r.tail + 1) % ringEntries
	var word [4]byte
	binary.LittleEndian.PutUint32(word[:], r.tail)
	return r.t.Post(abi.DoorbellOffset(r.number)+abi.DoorbellTail, word[:])
}

// stamp gives sub as it is submitted: with the number of the ring's slot, or, since
// admin commands name theirs themselves and have no numbers, with one of the ring's.
func (r *ring) stamp(sub *abi.Submission) *abi.Submission {
	s := *sub
	if r.number == 0 {
		s.Seq = r.seq
	} else {
		s.Slot = uint32(r.number - 1)
	}
	return &s
}

var (
	errStopped = errors.New("card stopped the queue")
	errLost    = errors.New("card lost the slot's worker")
)

// wait waits for the completion of sub. Its payload is valid until the next
// call. Every error but slot.ErrTimeout means that the ring is of no use.
func (r *ring) wait(sub *abi.Submission, timeout time.Duration) (abi.Completion, error) {
	for deadline := time.Now().Add(timeout); ; {
		left := time.Until(deadline)
		if err := waitEvent(r.event, min(left, watchPeriod)); err != nil {
			return abi.Completion{}, err
		}
		if abi.LoadWord(r.cq, r.cqOffset()+abi.CompletionPhase)&1 == abi.PhaseWord(r.phase) {
			return r.complete(sub)
		}
		switch {
		case r.ended.Load():
			return abi.Completion{}, io.EOF
		case r.t.Err() != nil:
			return abi.Completion{}, fmt.Errorf("card is gone: %w", r.t.Err())
		case left <= 0:
			return abi.Completion{}, slot.ErrTimeout
		}
		if err := r.checkState(); err != nil {
			return abi.Completion{}, err
		}
	}
}

func (r *ring) cqOffset() int { return int(r.next) * abi.CompletionEntrySize }

// complete takes the completion that is there: one copy, then the checks.
func (r *ring) complete(sub *abi.Submission) (abi.Completion, error) {
	var b [abi.CompletionEntrySize]byte
	copy(b[:], r.cq[r.cqOffset():])
	e, err := abi.ParseCompletionEntry(b[:])
	if err != nil {
		return abi.Completion{}, err
	}
	want := r.stamp(sub)
	if e.Op != want.Op || e.Seq != want.Seq || e.Slot != want.Slot || int(e.Queue) != r.number || e.Phase != r.phase {
		return abi.Completion{}, fmt.Errorf("completion of another submission: %w", abi.ErrMalformed)
	}
	if r.next++; r.next == ringEntries {
		r.next, r.phase = 0, !r.phase
	}
	if e.Status == abi.StatusLost {
		return abi.Completion{}, errLost
	}
	c := e.Completion
	c.Payload = r.buf[:copy(r.buf[:e.Length], r.answer)]
	return c, nil
}

// checkState looks whether the queue still works when there is no completion.
func (r *ring) checkState() error {
	var word [4]byte
	if err := r.t.Read(abi.DoorbellOffset(r.number)+abi.DoorbellState, word[:]); err != nil {
		return err
	}
	if s := abi.ParseQueueState(binary.LittleEndian.Uint32(word[:])); s.Life != abi.QueueLive {
		return fmt.Errorf("%w: state %d, fault %d", errStopped, s.Life, s.Fault)
	}
	return nil
}

// wipe clears the last command and answer wherever they are.
func (r *ring) wipe() {
	clear(r.payload)
	clear(r.answer)
	clear(r.buf[:])
}

// end makes wait give up, unless the ring was ended already.
func (r *ring) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ended.Swap(true) {
		signal(r.event)
	}
}

// release is the last call of the ring's user, after end.
func (r *ring) release() {
	r.wipe()
	r.m.release()
}

// waitEvent waits for an event, and consumes it, or for the timeout.
func waitEvent(event int, timeout time.Duration) error {
	ms := 0
	if timeout > 0 {
		ms = int(timeout.Milliseconds()) + 1 // never early
	}
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(event), Events: unix.POLLIN}}, ms)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("wait for the card: %w", err)
	}
	if n > 0 {
		var count [8]byte
		unix.Read(event, count[:])
	}
	return nil
}
