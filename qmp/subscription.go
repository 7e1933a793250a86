// SPDX-License-Identifier: Apache-2.0

package qmp

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// Limits of one subscription's queue. A consumer that reacts to events at all
// never comes near them; they bound the memory that a consumer which stopped, or
// a peer which floods, can cost.
const (
	DefaultEventLimit = 4096    // events
	maxQueuedBytes    = 1 << 20 // bytes of event text, as received: see MaxLine
)

// Subscription is an ordered queue of events. Its methods are safe for
// concurrent use, each event goes to one taker.
//
// The connection's reader never waits for a subscription. If the queue is full
// the oldest event is dropped, and that is reported: once by Next (ErrOverflow)
// or by Overflowed. A consumer for which a missed event matters must then assume
// the worst; one that watches RESET treats it as "perhaps reset".
type Subscription struct {
	client *Client
	names  []string      // empty: all
	limit  int           // events
	notify chan struct{} // capacity 1: the queue is worth a look
	closed chan struct{}

	mu       sync.Mutex
	isClosed bool
	queue    []queuedEvent
	bytes    int // sum of the sizes in queue
	lost     uint64
}

type queuedEvent struct {
	event Event
	size  int // bytes of the line it came in
}

// Subscribe starts to queue the events with the given names, or all events if
// there are none. It holds what the peer sends from now on; state that an
// earlier event may have changed must be queried after subscribing. Events are
// shared between subscriptions: their Data is read-only.
func (c *Client) Subscribe(names ...string) *Subscription {
	s := &Subscription{
		client: c,
		names:  slices.Clone(names),
		limit:  c.eventLimit,
		notify: make(chan struct{}, 1),
		closed: make(chan struct{}),
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.subs[s] = struct{}{}
	return s
}

// Next returns the oldest event, waiting for one if there is none. It returns
// ErrOverflow once per loss, before the events that remain. Events
// received before the connection ended are delivered first, then its error.
// After Close the error is ErrClosed.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	for {
		if n := s.takeLost(); n > 0 {
			return Event{}, fmt.Errorf("qmp: %w: %d events lost", ErrOverflow, n)
		}
		if e, ok := s.TryNext(); ok {
			return e, nil
		}
		select {
		case <-s.notify:
		case <-s.closed:
			return Event{}, fmt.Errorf("qmp: subscription: %w", ErrClosed)
		case <-ctx.Done():
			return Event{}, fmt.Errorf("qmp: waiting for event: %w", ctx.Err())
		case <-s.client.done:
			if s.idle() {
				return Event{}, s.client.Err()
			}
		}
	}
}

// TryNext returns the oldest event if there is one. It never blocks and does not
// report a loss: see Overflowed.
func (s *Subscription) TryNext() (Event, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return Event{}, false
	}
	e := s.shiftLocked()
	if len(s.queue) > 0 {
		s.wake() // another taker may be waiting
	}
	return e, true
}

// Overflowed says whether events were lost since this was last asked or Next
// last reported it. Callers of TryNext check it after the last event.
func (s *Subscription) Overflowed() bool { return s.takeLost() > 0 }

// Close ends the subscription and drops what it holds. Idempotent.
func (s *Subscription) Close() {
	s.client.mu.Lock()
	delete(s.client.subs, s)
	s.client.mu.Unlock()

	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.isClosed {
		s.isClosed = true
		s.queue, s.bytes, s.lost = nil, 0, 0
		close(s.closed)
	}
}

// offer queues an event if the subscription wants it. It never blocks.
func (s *Subscription) offer(e Event, size int) {
	if len(s.names) > 0 && !slices.Contains(s.names, e.Event) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isClosed {
		return
	}
	s.queue = append(s.queue, queuedEvent{e, size})
	s.bytes += size
	for len(s.queue) > 1 && (len(s.queue) > s.limit || s.bytes > maxQueuedBytes) {
		s.shiftLocked()
		s.lost++
	}
	s.wake()
}

// shiftLocked removes the oldest event. Preconditions: s.mu is held and the
// queue is not empty.
func (s *Subscription) shiftLocked() Event {
	first := s.queue[0]
	s.queue[0] = queuedEvent{} // the array lives on: let go of the data
	s.queue = s.queue[1:]
	s.bytes -= first.size
	return first.event
}

func (s *Subscription) takeLost() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.lost
	s.lost = 0
	return n
}

// idle says whether there is nothing left to take or to report.
func (s *Subscription) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue) == 0 && s.lost == 0
}

func (s *Subscription) wake() {
	select {
	case s.notify <- struct{}{}:
	default:
	}
}
