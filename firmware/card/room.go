// SPDX-License-Identifier: Apache-2.0

package card

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
)

// roomPoll is how often who waits for room looks whether a busy slot has become
// idle.
const roomPoll = 10 * time.Millisecond

// settleTime is how long a worker that has served nothing yet is left alone: it is
// about to.
const settleTime = time.Second

func monotonic() int64 {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail for this clock
	return ts.Nano()
}

// turn is how long a worker that is never idle may serve before it has to make room
// for a slot that waits, and how long one that was told to exit is counted on.
const turn = time.Second

// waits are how long to wait for room. Drivers give up a slot that they open after
// 30 s, and a command after 90 s: they are to be told why before that.
type waits struct{ open, wake, work time.Duration }

var defaultWaits = waits{open: 20 * time.Second, wake: time.Minute, work: makeTimeout}

// reserve makes room for one more worker. If there is none, somebody has to park.
// Whoever comes first gets it first.
func (c *Card) reserve(ctx context.Context, wait time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	select {
	case c.door <- struct{}{}:
		defer func() { <-c.door }()
	case <-ctx.Done():
		return c.noRoom(ctx)
	}
	for int(c.workers.Load()) >= c.cfg.MaxLive { // who has the door is the only one to add
		c.evict()
		select {
		case <-c.room:
		case <-time.After(roomPoll):
		case <-ctx.Done():
			return c.noRoom(ctx)
		}
	}
	c.workers.Add(1)
	return nil
}

func (c *Card) noRoom(ctx context.Context) error {
	return refuse(abi.StatusFull, "all %d workers are busy with other slots: try again, or let the card have more: %w", c.cfg.MaxLive, ctx.Err())
}

// release gives room back.
func (c *Card) release() {
	c.workers.Add(-1)
	select {
	case c.room <- struct{}{}:
	default:
	}
}

// evict has a worker exit, if none is about to: of those that are idle the one that
// was used least recently; or else, of those that had their turn, the one that has
// begun a command last, since it may be in one that takes long.
func (c *Card) evict() {
	var idle, busy *slot
	var oldest, newest int64
	now := monotonic()
	for _, s := range c.all() {
		used, o := s.occupied(now)
		switch {
		case o == leavingSlot:
			return
		case o == idleSlot && (idle == nil || used < oldest):
			idle, oldest = s, used
		case o == servedSlot && (busy == nil || used > newest):
			busy, newest = s, used
		}
	}
	if idle != nil {
		idle.park(false) // if it has become busy: the next time
	} else if busy != nil {
		busy.park(true)
	}
}

// occupancy is what a slot's worker does.
type occupancy uint8

const (
	busySlot    occupancy = iota // or no worker
	servedSlot                   // busy, and has had its turn
	idleSlot                     // nobody would miss it
	leavingSlot                  // was told to exit, not long ago
)

// occupied says what the slot's worker does, and when it was used last.
func (s *slot) occupied(now int64) (used int64, o occupancy) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.phase {
	case parking:
		if now-s.run.told < int64(turn) {
			return 0, leavingSlot
		}
	case live:
		return s.run.occupied(now)
	case closed, opening, parked, busy:
	}
	return 0, busySlot
}

func (r *run) occupied(now int64) (used int64, o occupancy) {
	last := r.page.LastActive()
	used = max(last, r.started)
	switch {
	case !r.page.Busy() && (last != 0 || now-r.started >= int64(settleTime)):
		return used, idleSlot
	case now-r.started >= int64(turn):
		return used, servedSlot
	}
	return used, busySlot
}

// park tells the slot's worker to exit, and the slot goes on when its client does.
// One that is busy has to be forced: it answers first.
func (s *slot) park(force bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.phase == parking, s.phase == parked:
		return nil
	case s.phase == closed:
		return refuse(abi.StatusOrder, "slot %s is not open", s.rec.Name)
	case s.phase != live:
		return refuse(abi.StatusInUse, "slot %s is about to be used", s.rec.Name)
	case s.run.page.Busy() && !force:
		return refuse(abi.StatusInUse, "slot %s is busy", s.rec.Name)
	}
	return s.tellToExit()
}

// parkAndWait parks the slot for an administrator. One that has just answered is
// busy for a moment still.
func (s *slot) parkAndWait(ctx context.Context) error {
	timeout := time.After(exitGrace)
	for {
		err := s.park(false)
		s.mu.Lock()
		phase, next := s.phase, s.next()
		s.mu.Unlock()
		if phase == parked {
			return nil
		}
		if err != nil && statusOf(err) != abi.StatusInUse {
			return err
		}
		select {
		case <-next:
		case <-time.After(roomPoll):
		case <-ctx.Done():
			return ctx.Err()
		case <-timeout:
			return refuse(abi.StatusInUse, "slot %s is busy", s.rec.Name)
		}
	}
}

// parkIdle parks slots that nobody has used for a while, and ends workers that
// don't notice that their client has hung up.
func (c *Card) parkIdle() {
	period := min(max(c.cfg.ParkAfter/4, roomPoll), time.Second)
	if c.cfg.ParkAfter < 0 {
		period = time.Second
	}
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-tick.C:
		}
		now := monotonic()
		for _, s := range c.all() {
			if used, o := s.occupied(now); o == idleSlot && c.cfg.ParkAfter >= 0 && now-used > int64(c.cfg.ParkAfter) {
				s.park(false)
			}
			s.reap(now)
		}
	}
}

// reap ends the worker of a client that has hung up for long.
func (s *slot) reap(now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.run == nil || !s.line.hungUp():
	case s.run.hung == 0:
		s.run.hung = now
	case now-s.run.hung > int64(endGrace):
		s.card.log.Warn("worker does not end though its client has", "slot", s.rec.Name, "pid", s.run.proc.PID())
		s.run.proc.Kill()
	}
}

// tellToExit sends the order.
//
// Preconditions: s.mu is held; the slot is live.
func (s *slot) tellToExit() error {
	if err := s.run.tellToExit(); err != nil {
		s.run.proc.Kill()
		return fmt.Errorf("park slot %s: %w", s.rec.Name, err)
	}
	s.run.told = monotonic()
	s.set(parking)
	return nil
}
