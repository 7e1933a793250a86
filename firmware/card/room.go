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

// reserve makes room for one more worker, and parks the slot that was used least
// recently for it. Whoever comes first gets it first.
func (c *Card) reserve(ctx context.Context) error {
	select {
	case c.door <- struct{}{}:
		defer func() { <-c.door }()
	case <-ctx.Done():
		return noRoom(ctx)
	}
	for {
		if int(c.workers.Load()) < c.cfg.MaxLive || c.evict() {
			c.workers.Add(1)
			return nil
		}
		select {
		case <-c.room:
		case <-time.After(roomPoll):
		case <-ctx.Done():
			return noRoom(ctx)
		}
	}
}

func noRoom(ctx context.Context) error {
	return refuse(abi.StatusFull, "all workers are busy: %w", ctx.Err())
}

// release gives room back.
func (c *Card) release() {
	c.workers.Add(-1)
	select {
	case c.room <- struct{}{}:
	default:
	}
}

// evict parks a slot if none is being parked yet. It says whether there is room
// when those that cannot be parked don't count.
func (c *Card) evict() bool {
	var victim *slot
	var oldest int64
	pinned, leaving := 0, 0
	now := monotonic()
	for _, s := range c.all() {
		used, state := s.idle(now)
		switch state {
		case pinnedSlot:
			pinned++
		case leavingSlot:
			leaving++
		case idleSlot:
			if victim == nil || used < oldest {
				victim, oldest = s, used
			}
		case busySlot:
		}
	}
	if int(c.workers.Load())-pinned < c.cfg.MaxLive {
		return true
	}
	if victim != nil && int(c.workers.Load())-pinned-leaving >= c.cfg.MaxLive {
		victim.park() // if it has become busy: the next time
	}
	return false
}

// occupancy is what a slot's worker does.
type occupancy uint8

const (
	busySlot    occupancy = iota // or no worker
	idleSlot                     // may be parked
	pinnedSlot                   // cannot be parked
	leavingSlot                  // is being parked
)

// idle says what the slot's worker does, and when it was used last.
func (s *slot) idle(now int64) (used int64, o occupancy) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.phase {
	case parking:
		return 0, leavingSlot
	case live:
		return s.run.idle(now)
	case closed, opening, parked, busy:
	}
	return 0, busySlot
}

func (r *run) idle(now int64) (used int64, o occupancy) {
	last := r.page.LastActive()
	switch {
	case r.page.Busy(), last == 0 && now-r.started < int64(settleTime):
		return 0, busySlot
	case r.page.State() != abi.SlotRunning:
		return 0, pinnedSlot
	}
	return max(last, r.started), idleSlot
}

// park tells the slot's worker to exit, and the slot goes on when its client does.
func (s *slot) park() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.phase == parking, s.phase == parked:
		return nil
	case s.phase == closed:
		return refuse(abi.StatusOrder, "slot %s is not open", s.rec.Name)
	case s.phase != live:
		return refuse(abi.StatusInUse, "slot %s is about to be used", s.rec.Name)
	case s.run.page.State() != abi.SlotRunning:
		return refuse(abi.StatusInUse, "slot %s is %s, not running", s.rec.Name, s.run.page.State())
	case s.run.page.Busy():
		return refuse(abi.StatusInUse, "slot %s is busy", s.rec.Name)
	}
	return s.tellToExit()
}

// parkAndWait parks the slot for an administrator. One that has just answered is
// busy for a moment still.
func (s *slot) parkAndWait(ctx context.Context) error {
	timeout := time.After(exitGrace)
	for {
		err := s.park()
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
			if used, o := s.idle(now); o == idleSlot && c.cfg.ParkAfter >= 0 && now-used > int64(c.cfg.ParkAfter) {
				s.park()
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
	s.set(parking)
	return nil
}
