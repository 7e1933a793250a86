// SPDX-License-Identifier: Apache-2.0

package card

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/sealed"
	"hwvtpm/firmware/wire"
)

// open opens the slot for a client that has proved itself.
func (s *slot) open(ctx context.Context) (*Grant, error) {
	if err := s.enter(ctx, opening); err != nil {
		return nil, err
	}
	l, grant, err := newLine(s.rec.Number)
	if err == nil {
		s.mu.Lock()
		s.line, s.lastUsed = l, time.Now().Unix()
		s.mu.Unlock()
		err = s.bring(ctx, s.card.waits.open, 0)
	}
	if err == nil {
		return grant, nil
	}
	if grant != nil {
		grant.Close()
	}
	s.fail(err)
	return nil, fmt.Errorf("slot %s: %w", s.rec.Name, err)
}

// fail closes a slot that could not be opened, and marks it if that stays so.
func (s *slot) fail(err error) {
	if !faulty(statusOf(err)) {
		s.leave(nil)
		return
	}
	s.mu.Lock()
	known := s.fault != nil && s.fault.Error() == err.Error() // who tries again must not fill the log
	s.mu.Unlock()
	if !known {
		s.card.log.Error("slot cannot be opened", "slot", s.rec.Name, "err", err)
	}
	s.leave(err)
}

// bring gives the slot a worker, for which it waits so long at most, and makes it
// live.
//
// Preconditions: the slot is opening and has a line.
func (s *slot) bring(ctx context.Context, wait time.Duration, flags wire.SetupFlags) error {
	c := s.card
	blob, err := c.store.ReadState(s.rec.ID)
	if err != nil {
		return err
	}
	setup, err := s.setup(flags, blob)
	if err != nil {
		return err
	}
	defer setup.Clear()
	volatile, err := c.store.Volatile(s.rec.ID)
	if err != nil {
		return err
	}
	defer volatile.Close()
	r, err := c.start(ctx, wait, s, setup, blob, int(volatile.Fd()), s.line.data, s.line.control)
	if err != nil {
		return err
	}
	r.proc.Name(s.rec.Name)
	ready, err := r.await(ctx, c.readyTimeout)
	if err != nil {
		return err
	}
	if ready.Status != abi.StatusOK {
		r.proc.Kill()
		<-r.done
		return refuse(ready.Status, "worker: %s", ready.Text)
	}
	return s.goLive(r)
}

// goLive makes a ready worker the slot's.
func (s *slot) goLive(r *run) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.over {
		return r.ending()
	}
	s.run, s.fault = r, nil
	s.set(live)
	return nil
}

// setup is what a worker of this slot is told. A state that it would refuse is
// refused here, since the header shows it.
func (s *slot) setup(flags wire.SetupFlags, blob []byte) (*wire.Setup, error) {
	c := s.card
	l, err := sealed.ParseLabel(blob)
	if err != nil {
		return nil, err
	}
	minEpoch, minGeneration := c.store.Newest(s.rec.ID)
	epoch := c.store.Epoch()
	switch {
	case l.Slot != s.rec.ID || l.Kind != sealed.KindPermanent:
		return nil, fmt.Errorf("state file holds %s: %w", l, sealed.ErrForeign)
	case l.Epoch < minEpoch || l.Epoch == minEpoch && l.Generation < minGeneration:
		return nil, fmt.Errorf("%s was set back, the newest is %d.%d: restore that, or adopt this one: %w", l, minEpoch, minGeneration, sealed.ErrRollback)
	case l.Epoch > epoch:
		return nil, fmt.Errorf("%s is of an epoch to come, this is %d: %w", l, epoch, sealed.ErrCounter)
	}
	key, err := c.store.SlotKey(s.rec.ID)
	if err != nil {
		return nil, err
	}
	defer key.Clear()
	s.mu.Lock()
	defer s.mu.Unlock()
	setup := &wire.Setup{
		Flags: flags | c.curves(), Slot: s.rec.ID, Key: [32]byte(key.Bytes()), Boot: c.boot,
		Epoch: epoch, MinEpoch: minEpoch, MinGeneration: minGeneration, MinSeq: s.seq,
	}
	if s.mayRestore && flags&(wire.Clone|wire.Recertify) == 0 {
		setup.Flags |= wire.MayRestore
	}
	if s.usedEpoch == epoch {
		setup.UsedGeneration = s.used
	}
	return setup, nil
}

// wakeTries is how often a slot is brought back before its client is told that it
// is gone, and firstPause what is between them, twice as long each time.
const (
	wakeTries  = 4
	firstPause = 50 * time.Millisecond
)

// wake is called when the client of a parked slot has sent something, or hung up.
func (s *slot) wake(ticket uint64, hungUp bool) {
	if !s.takeParked(ticket, hungUp) {
		return
	}
	began := time.Now()
	pause := firstPause
	for try := 1; ; try++ {
		err := s.bring(s.card.ctx, s.card.waits.wake, s.comeback())
		if err == nil {
			s.card.resumed(time.Since(began))
			return
		}
		if status := statusOf(err); try == wakeTries || faulty(status) || status == abi.StatusFull || s.card.ctx.Err() != nil {
			s.card.log.Error("slot cannot be brought back", "slot", s.rec.Name, "err", err)
			s.fail(err)
			return
		}
		time.Sleep(pause)
		pause *= 2
	}
}

// comeback says to the next worker how its client's slot was parked.
func (s *slot) comeback() wire.SetupFlags {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.parkedIn {
	case abi.SlotRunning:
		return wire.Greeted | wire.Powered
	case abi.SlotFailed:
		return wire.Greeted | wire.Failed
	}
	return wire.Greeted
}

// takeParked takes a slot that is parked still, to bring it back, or closes it.
func (s *slot) takeParked(ticket uint64, hungUp bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase != parked || s.ticket != ticket {
		return false
	}
	if hungUp || s.line.hungUp() {
		s.hangUp()
		return false
	}
	s.card.watch.remove(s.ticket, s.line.data)
	s.ticket = 0
	s.set(opening)
	return true
}

// check implements job.
func (s *slot) check(l sealed.Label) error { return s.card.store.CheckState(l) }

// save implements job.
func (s *slot) save(l sealed.Label, blob []byte, older bool) error {
	s.mu.Lock()
	s.usedEpoch, s.used = l.Epoch, l.Generation
	permitted := s.mayRestore
	s.mu.Unlock()
	began := time.Now()
	err := errNotPermitted
	if permitted || !older {
		err = s.card.store.SaveState(l, blob)
	}
	s.card.saved(time.Since(began), err)
	if err != nil {
		s.card.notSaved(s.rec.Name, err)
	} else if older {
		s.wentBack(l)
	}
	return err
}

// errNotPermitted: a worker wants to go back to an older state by itself.
var errNotPermitted = errors.New("the worker has no permission to go back to an older state")

// wentBack uses up the permission to go back.
func (s *slot) wentBack(l sealed.Label) {
	s.mu.Lock()
	s.mayRestore = false
	s.mu.Unlock()
	s.card.log.Warn("slot went back to an older state, as an administrator has permitted", "slot", s.rec.Name, "as", l.String())
}

// ended implements job. It makes the slot parked, if that was meant, or closed;
// who waits for a worker to be ready sees to the rest by itself.
func (s *slot) ended(r *run) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.over = true
	s.commands += r.page.Commands()
	s.seq = max(s.seq, r.page.Seq()) // zero if it did not come that far
	if s.run != r {
		return
	}
	s.run = nil
	s.lastUsed = time.Now().Unix()
	err := r.breach
	if err == nil && !r.proc.InOrder() {
		err = errors.New(r.proc.Ending())
	}
	if err != nil {
		s.restarts++
		s.card.counters.restarts.Add(1)
		s.card.log.Error("worker died; its client has to come again", "slot", s.rec.Name, "pid", r.proc.PID(), "err", err)
	}
	if err == nil && s.phase == parking && s.ctxOpen() && s.watched() {
		s.parkedIn = r.page.State()
		s.set(parked)
		s.card.counters.parks.Add(1)
		return
	}
	s.hangUp()
}

func (s *slot) ctxOpen() bool { return s.card.ctx.Err() == nil }

// watched lets the card watch the slot's line.
//
// Preconditions: s.mu is held.
func (s *slot) watched() bool {
	if s.line.hungUp() {
		return false
	}
	var err error
	s.ticket, err = s.card.watch.add(s, s.line.data)
	if err != nil {
		s.card.log.Error("cannot watch a parked slot", "slot", s.rec.Name, "err", err)
	}
	return err == nil
}
