// SPDX-License-Identifier: Apache-2.0

package board

import (
	"fmt"

	"hwvtpm/coproc/abi"
)

// slot is a slot's queue and the worker that executes what comes on it. A
// worker's life begins with the first OpIdentify and ends with OpClose, with
// the queue, or by accident.
type slot struct {
	queue  queue
	worker Worker              // nil: none
	busy   bool                // the worker has a submission
	entry  abi.SubmissionEntry // that one
	buf    [abi.MaxMessage]byte
}

// feedSlot hands the next submission to the worker if it has none.
func (c *Card) feedSlot() {
	s := &c.slot
	for c.pci.busMaster() && !s.busy && s.queue.pending() {
		e, payload, ok := c.take(&s.queue, s.buf[abi.HeaderSize:])
		if !ok {
			continue
		}
		if e.Slot != 0 {
			c.complete(&s.queue, &e, abi.StatusNoSlot, 0, nil)
			continue
		}
		if s.worker == nil && e.Op == abi.OpIdentify {
			c.startWorker()
		}
		if s.worker == nil {
			c.complete(&s.queue, &e, abi.StatusLost, 0, nil)
			continue
		}
		abi.PutSubmissionHeader(s.buf[:], &e.Submission, len(payload))
		msg := s.buf[:abi.HeaderSize+len(payload)]
		s.busy, s.entry = true, e
		if err := s.worker.Send(msg); err != nil {
			c.lost(s.worker, err)
		}
		clear(msg)
	}
}

func (c *Card) startWorker() {
	w, err := c.cfg.Start()
	if err != nil {
		c.log.Error("worker cannot be started", "error", err)
		return
	}
	c.slot.worker = w
	go c.listen(w)
}

// listen takes the worker's completions until it is gone.
func (c *Card) listen(w Worker) {
	var buf [abi.MaxMessage + 1]byte // one more, to notice what is too long
	for {
		n, err := w.Receive(buf[:])
		ended := err != nil || n == 0
		c.mu.Lock()
		if c.slot.worker == w { // else it was ended on purpose
			if !ended {
				err = c.answer(w, buf[:n])
			}
			if ended || err != nil {
				c.lost(w, err)
			}
			c.work()
		}
		c.mu.Unlock()
		clear(buf[:max(n, 0)])
		if ended {
			return
		}
	}
}

// answer hands a worker's completion to the client. An error means that the
// worker is not to be trusted any more.
func (c *Card) answer(w Worker, msg []byte) error {
	s := &c.slot
	done, err := abi.ParseCompletion(msg)
	if err != nil {
		return err
	}
	e := s.entry
	if !s.busy || done.Op != e.Op || done.Seq != e.Seq || done.Slot != e.Slot {
		return fmt.Errorf("completion of another submission: %w", abi.ErrMalformed)
	}
	if done.Op == abi.OpClose || done.Op == abi.OpIdentify && done.Status != abi.StatusOK {
		s.worker = nil // its last answer: it ends itself
		w.Close()
	}
	s.busy = false
	c.complete(&s.queue, &e, done.Status, done.Flags, done.Payload)
	return nil
}

// lost ends a worker that is gone or not to be trusted, and answers what it
// had to do. Only then the client may start another.
func (c *Card) lost(w Worker, why error) {
	s := &c.slot
	c.log.Warn("worker is gone", "cause", why)
	s.worker = nil
	w.Kill()
	if s.busy {
		s.busy = false
		c.complete(&s.queue, &s.entry, abi.StatusLost, 0, nil)
	}
}

// cancel is the cancel doorbell. Sequence numbers of one slot that are alive
// at the same time never share their low half.
func (c *Card) cancel(seq uint32) {
	s := &c.slot
	if s.busy && s.entry.Op == abi.OpExecute && uint32(s.entry.Seq) == seq {
		s.worker.Cancel(s.entry.Seq)
	}
}

// endSlot ends the worker, without an answer, and the queue.
func (c *Card) endSlot() {
	s := &c.slot
	if s.worker != nil {
		w := s.worker
		s.worker = nil
		w.Kill()
	}
	s.busy = false
	s.queue = queue{}
}
