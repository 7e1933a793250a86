// SPDX-License-Identifier: Apache-2.0

package board

import (
	"bytes"

	"hwvtpm/coproc/abi"
)

// queue is a queue pair. Indices stay below the number of entries.
type queue struct {
	abi.QueueConfig
	number uint16
	state  abi.QueueState
	head   uint32 // next submission to take
	tail   uint32 // behind the last submission
	done   uint32 // next completion to write
	phase  bool   // of that
	held   *held  // nil: none
}

// held is a completion that waits for bus mastering. A queue has one at most: its next
// submission is taken after it.
type held struct {
	entry  abi.SubmissionEntry
	status abi.Status
	flags  abi.Flags
	answer []byte
}

func newQueue(number uint16, cfg abi.QueueConfig) queue {
	return queue{QueueConfig: cfg, number: number, state: abi.QueueState{Life: abi.QueueLive}, phase: true}
}

func (q *queue) live() bool    { return q.state.Life == abi.QueueLive }
func (q *queue) pending() bool { return q.live() && q.head != q.tail }

// ring takes a new tail.
func (c *Card) ring(q *queue, tail uint32) {
	if !q.live() {
		return
	}
	if tail >= uint32(q.Entries) {
		c.fault(q, abi.FaultDoorbell)
		return
	}
	q.tail = tail
	if q.number == 0 {
		c.work()
	} else {
		c.feed(&c.slots[q.number-1])
	}
}

// work does what is to do on all queues.
func (c *Card) work() {
	for c.pci.busMaster() && c.admin.pending() && !c.office.busy {
		c.runAdmin()
	}
	for i := range c.slots {
		c.feed(&c.slots[i])
	}
}

// release gives the completions that were held.
func (c *Card) release() {
	for n := range uint64(1 + slots) {
		q := c.queueOf(n)
		if h := q.held; h != nil && c.pci.busMaster() {
			q.held = nil
			c.complete(q, &h.entry, h.status, h.flags, h.answer)
			clear(h.answer)
		}
	}
}

// queueOf gives queue number n of the doorbell pages.
func (c *Card) queueOf(n uint64) *queue {
	if n == 0 {
		return &c.admin
	}
	return &c.slots[n-1].queue
}

// fault stops a queue, and tells the client.
func (c *Card) fault(q *queue, f abi.Fault) {
	c.log.Warn("queue is stopped", "queue", q.number, "fault", int(f))
	q.state = abi.QueueState{Life: abi.QueueFaulted, Fault: f}
	if q.number == 0 {
		c.fatal = f
	}
	c.interrupt(q)
}

func (c *Card) interrupt(q *queue) {
	if c.pci.busMaster() && int(q.Vector) < len(c.events) {
		c.events[q.Vector].Signal()
	}
}

// take takes the next submission, and its payload to the start of buf. ok is
// false if the queue is stopped, or if the submission was answered already,
// because it is malformed. The answer's buffer is memory.
func (c *Card) take(q *queue, buf []byte) (e abi.SubmissionEntry, payload []byte, ok bool) {
	var b [abi.SubmissionEntrySize]byte
	if err := c.mem.read(q.SQ+uint64(q.head)*abi.SubmissionEntrySize, b[:]); err != nil {
		c.fault(q, abi.FaultAddress)
		return e, nil, false
	}
	q.head = (q.head + 1) % uint32(q.Entries)
	e, err := abi.ParseSubmissionEntry(b[:])
	if err != nil {
		c.complete(q, &e, abi.StatusBadField, 0, nil)
		return e, nil, false
	}
	payload = buf[:e.Length]
	if _, err = c.mem.bytes(e.AnswerAt, abi.PageSize, true); err == nil && e.Length > 0 {
		err = c.mem.read(e.PayloadAt, payload)
	}
	if err != nil {
		c.fault(q, abi.FaultAddress)
		return e, nil, false
	}
	return e, payload, true
}

// complete answers a submission: the answer, then the entry, then the phase,
// then the interrupt.
func (c *Card) complete(q *queue, e *abi.SubmissionEntry, status abi.Status, flags abi.Flags, answer []byte) {
	switch {
	case !q.live():
		return // stopped while the submission was executed
	case !c.pci.busMaster():
		q.held = &held{*e, status, flags, bytes.Clone(answer)}
		return
	}
	if len(answer) > 0 {
		if err := c.mem.write(e.AnswerAt, answer); err != nil {
			c.fault(q, abi.FaultAddress)
			return
		}
	}
	b := abi.AppendCompletionEntry(nil, &abi.CompletionEntry{
		Completion: abi.Completion{Op: e.Op, Status: status, Slot: e.Slot, Seq: e.Seq, Flags: flags},
		Length:     uint32(len(answer)), Queue: q.number, Phase: q.phase,
	})
	at := q.CQ + uint64(q.done)*abi.CompletionEntrySize
	if err := c.mem.publish(at, b, abi.CompletionPhase, abi.PhaseWord(q.phase)); err != nil {
		c.fault(q, abi.FaultAddress)
		return
	}
	q.done = (q.done + 1) % uint32(q.Entries)
	if q.done == 0 {
		q.phase = !q.phase
	}
	c.interrupt(q)
}
