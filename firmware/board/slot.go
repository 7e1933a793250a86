// SPDX-License-Identifier: Apache-2.0

package board

import (
	"errors"
	"fmt"

	"hwvtpm/coproc/abi"
)

// slot is what the function shows of one slot of the card: its queue, and the
// channel to what executes what comes on it. OpSlotOpen brings the channel. It
// ends with OpClose, with the queue, or by accident.
type slot struct {
	number uint32
	queue  queue
	link   *link               // nil: the slot is not open
	busy   bool                // a submission is with the slot
	entry  abi.SubmissionEntry // that one
	buf    [abi.MaxMessage]byte
}

// feed hands the slot its next submission if it has none.
func (c *Card) feed(s *slot) {
	for c.pci.busMaster() && !s.busy && s.queue.pending() {
		e, payload, ok := c.take(&s.queue, s.buf[abi.HeaderSize:])
		if !ok {
			continue
		}
		if e.Slot != s.number {
			c.complete(&s.queue, &e, abi.StatusNoSlot, 0, nil)
			continue
		}
		if s.link == nil {
			c.complete(&s.queue, &e, abi.StatusLost, 0, nil)
			continue
		}
		sub := e.Submission
		sub.Slot = 0 // the channel has one slot only
		abi.PutSubmissionHeader(s.buf[:], &sub, len(payload))
		msg := s.buf[:abi.HeaderSize+len(payload)]
		s.busy, s.entry = true, e
		if err := s.link.send(msg); err != nil {
			c.lost(s, err)
		}
		clear(msg)
	}
}

// open gives the slot a channel. A queue that it has goes on with it.
func (c *Card) open(s *slot, l *link) {
	if s.link != nil {
		c.lost(s, errors.New("opened again"))
	}
	s.link = l
	c.tasks.Go(func() { c.listen(s, l) })
}

// listen takes completions until the channel is gone.
func (c *Card) listen(s *slot, l *link) {
	var buf [abi.MaxMessage + 1]byte // one more, to notice what is too long
	for {
		n, err := l.receive(buf[:])
		ended := err != nil || n == 0
		c.mu.Lock()
		if s.link == l { // else it was ended on purpose
			if !ended {
				err = c.answer(s, buf[:n])
			}
			if ended || err != nil {
				c.lost(s, err)
			}
			c.feed(s)
		}
		c.mu.Unlock()
		clear(buf[:n])
		if ended {
			return
		}
	}
}

// answer hands a completion to the client. An error means that the other end is
// not to be trusted any more.
func (c *Card) answer(s *slot, msg []byte) error {
	done, err := abi.ParseCompletion(msg)
	if err != nil {
		return err
	}
	e := s.entry
	if !s.busy || done.Op != e.Op || done.Seq != e.Seq || done.Slot != 0 {
		return fmt.Errorf("completion of another submission: %w", abi.ErrMalformed)
	}
	if done.Op == abi.OpClose || done.Op == abi.OpIdentify && done.Status != abi.StatusOK {
		s.link.end() // that was its last answer
		s.link = nil
	}
	s.busy = false
	c.complete(&s.queue, &e, done.Status, done.Flags, done.Payload)
	return nil
}

// lost gives up a channel that is gone or not to be trusted, and answers what
// was under way.
func (c *Card) lost(s *slot, why error) {
	c.log.Warn("slot is lost", "slot", s.number, "cause", why)
	s.link.end()
	s.link = nil
	if s.busy {
		s.busy = false
		c.complete(&s.queue, &s.entry, abi.StatusLost, 0, nil)
	}
}

// cancel is the cancel doorbell. Sequence numbers of one slot that are alive
// at the same time never share their low half.
func (s *slot) cancel(seq uint32) {
	if s.busy && s.entry.Op == abi.OpExecute && uint32(s.entry.Seq) == seq {
		s.link.cancel(s.entry.Seq)
	}
}

// end hangs up, without an answer, and ends the queue.
func (s *slot) end() {
	if s.link != nil {
		s.link.end()
		s.link = nil
	}
	s.busy = false
	s.queue = queue{}
}
