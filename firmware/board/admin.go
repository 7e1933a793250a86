// SPDX-License-Identifier: Apache-2.0

package board

import (
	"bytes"
	"context"
	"fmt"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/card"
)

// Session is what the card gives to the client of the function, with the rights
// of an administrator. *card.Session implements it.
type Session interface {
	// Do executes one submission. The reply's payload may be in dst, which
	// has room for abi.MaxPayload bytes; its grant is the caller's.
	Do(ctx context.Context, sub *abi.Submission, dst []byte) card.Reply

	// Close forgets the client. Slots that it has opened stay open.
	Close()
}

// office executes admin commands, from the admin queue's start to its end.
type office struct {
	session Session
	ctx     context.Context // of the session
	cancel  context.CancelFunc
	busy    bool // the session has a submission
}

func newOffice(s Session) *office {
	o := &office{session: s}
	o.ctx, o.cancel = context.WithCancel(context.Background())
	return o
}

// runAdmin executes the next submission of the admin queue. Those for the card
// may take seconds and are executed beside everything else.
func (c *Card) runAdmin() {
	var buf [abi.MaxPayload]byte
	e, payload, ok := c.take(&c.admin, buf[:])
	if !ok {
		return
	}
	switch {
	case e.Op == abi.OpQueueCreate:
		status, why := c.createQueue(e.Slot, payload)
		c.complete(&c.admin, &e, status, 0, []byte(why))
	case e.Op == abi.OpQueueDelete:
		status, why := c.deleteQueue(e.Slot, payload)
		c.complete(&c.admin, &e, status, 0, []byte(why))
	case e.Op == abi.OpSlotOpen && e.Slot >= slots:
		status, why := noSlot(e.Slot)
		c.complete(&c.admin, &e, status, 0, []byte(why))
	default:
		e.Payload = bytes.Clone(payload)
		o := c.office
		o.busy = true
		c.tasks.Go(func() { c.runCard(o, &e) })
	}
}

// runCard has the card execute a submission. If the queue ended meanwhile its
// answer is for nobody.
func (c *Card) runCard(o *office, e *abi.SubmissionEntry) {
	r := o.session.Do(o.ctx, &e.Submission, make([]byte, 0, abi.MaxPayload))
	c.mu.Lock()
	defer c.mu.Unlock()
	o.busy = false
	if c.office != o {
		if r.Grant != nil {
			r.Grant.Close()
		}
		o.session.Close()
		return
	}
	if r.Grant != nil {
		r = c.accept(e.Slot, r)
	}
	if e.Op == abi.OpCardIdentify && r.Status == abi.StatusOK {
		r.Payload = showSlots(r.Payload)
	}
	if len(r.Payload) > abi.MaxPayload {
		r = card.Reply{Status: abi.StatusInternal}
	}
	c.complete(&c.admin, e, r.Status, 0, r.Payload)
	c.work()
}

// accept takes over a slot that was opened.
func (c *Card) accept(number uint32, r card.Reply) card.Reply {
	if r.Grant.Number != number {
		r.Grant.Close()
		return card.Reply{Status: abi.StatusInternal}
	}
	l, err := newLink(r.Grant)
	if err != nil {
		c.log.Error("slot cannot be opened", "slot", number, "error", err)
		return card.Reply{Status: abi.StatusInternal, Payload: []byte(err.Error())}
	}
	c.open(&c.slots[number], l)
	return card.Reply{Status: r.Status, Payload: r.Payload}
}

// showSlots corrects the card's identity: the function shows fewer slots than
// the card may have.
func showSlots(payload []byte) []byte {
	id, err := abi.ParseCardIdentity(payload)
	if err != nil {
		return payload
	}
	id.Slots = min(id.Slots, slots)
	return abi.AppendCardIdentity(nil, &id)
}

func noSlot(number uint32) (abi.Status, string) {
	return abi.StatusNoSlot, fmt.Sprintf("slot %d has no queue: the function shows slots 0 to %d", number, slots-1)
}

// createQueue gives an open slot a queue.
func (c *Card) createQueue(number uint32, payload []byte) (abi.Status, string) {
	if number >= slots {
		return noSlot(number)
	}
	s := &c.slots[number]
	cfg, err := abi.ParseQueueConfig(payload)
	switch {
	case err != nil:
		return abi.StatusBadField, err.Error()
	case cfg.Vector >= vectors:
		return abi.StatusBadField, fmt.Sprintf("vector %d of %d", cfg.Vector, vectors)
	case s.queue.state.Life != abi.QueueNone:
		return abi.StatusInUse, "the slot has a queue: delete it first"
	case s.link == nil:
		return abi.StatusDenied, "the slot is not open: answer its challenge first"
	}
	s.queue = newQueue(uint16(1+number), cfg)
	return abi.StatusOK, ""
}

// deleteQueue ends a slot's queue and closes the slot.
func (c *Card) deleteQueue(number uint32, payload []byte) (abi.Status, string) {
	switch {
	case number >= slots:
		return noSlot(number)
	case len(payload) != 0:
		return abi.StatusBadField, "payload of a command that has none"
	}
	c.slots[number].end() // none is no error: so a driver can begin with it
	return abi.StatusOK, ""
}

// endAdmin ends the admin queue and its session.
func (c *Card) endAdmin() {
	c.admin = queue{}
	if o := c.office; o != nil {
		c.office = nil
		o.cancel()
		if !o.busy { // else runCard does it
			o.session.Close()
		}
	}
}
