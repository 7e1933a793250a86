// SPDX-License-Identifier: Apache-2.0

package card

import (
	"context"
	"crypto/ed25519"
	"sync"
	"time"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/card/store"
)

// phase is what a slot does.
//
//	        open             the worker is ready
//	closed ------> opening ----------------------> live
//	 ^ ^ ^            |  ^                         |  |
//	 | | |   refused, |  | the client has          |  | idle, or room is needed:
//	 | | |  or failed |  | sent something          |  | the worker is told to exit
//	 | | +------------+  |                         |  v
//	 | |                parked <---------------- parking
//	 | |  client hung up |    worker has exited     |
//	 | +-----------------+                          |
//	 |                                              |
//	 +----------------------------------------------+
//	 |     client hung up; or the worker died: the client sees the end
//	 v
//	busy    destroyed, cloned, adopted, certified, locked
//
// A slot that is locked or faulted is closed, and a mark says so. From opening to
// parked it has a line to its client; from opening to parking it may have a
// worker. The worker's own goroutine (run.serve) makes the step out of live and
// parking; all others are made by who asked for them.
type phase uint8

const (
	closed phase = iota
	opening
	live
	parking
	parked
	busy
)

// slot is one slot of the card.
type slot struct {
	card *Card
	rec  store.Record // Locked is not kept up to date

	mu      sync.Mutex // guards what follows
	phase   phase
	changed chan struct{} // closed at the next change of phase; nil if nobody waits
	locked  bool
	gone    bool  // destroyed
	fault   error // why it cannot be opened
	// mayRestore: one load of an older state is permitted. It is gone with the
	// card's process.
	mayRestore bool
	line       *line // the client's
	run        *run  // the worker; live and parking only
	ticket     uint64
	parkedIn   abi.SlotState // what the TPM was like; parked and opening only
	history
}

// history is what a slot remembers of workers that have ended.
type history struct {
	seq                uint64 // last sequence number on record; 0: not known
	usedEpoch, used    uint64 // newest position that a worker asked to save
	commands, restarts uint64
	lastUsed           int64 // seconds since 1970
}

func newSlot(c *Card, r store.Record) *slot {
	return &slot{card: c, rec: r, locked: r.Locked}
}

// set makes a step and tells who waits for one.
//
// Preconditions: s.mu is held.
func (s *slot) set(p phase) {
	s.phase = p
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// next is closed at the next step.
//
// Preconditions: s.mu is held.
func (s *slot) next() <-chan struct{} {
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.changed
}

// endGrace is how long the worker of a client that hung up may take to end.
const endGrace = 3 * time.Second

// A process that is being started has all descriptors of its parent until it
// executes its program. So for a moment a client's end may look open that is
// closed, and doubtTime is how long that is taken into account.
const (
	doubtTime = 100 * time.Millisecond
	doubtPoll = 5 * time.Millisecond
)

// enter takes a slot that is closed for one of opening and busy. If its client
// has hung up it waits for the worker to end, and ends it by force if need be.
func (s *slot) enter(ctx context.Context, to phase) error {
	began := time.Now()
	deadline := time.After(endGrace)
	for {
		wait, err := s.tryEnter(to)
		if wait == nil || err != nil && time.Since(began) > doubtTime {
			return err
		}
		var again <-chan time.Time
		if err != nil {
			again = time.After(doubtPoll)
		}
		select {
		case <-wait:
		case <-again:
		case <-ctx.Done():
			return refuse(abi.StatusInUse, "slot %s: %w", s.rec.Name, ctx.Err())
		case <-deadline:
			s.kill()
			deadline = nil
		}
	}
}

// tryEnter takes the slot, or says what to wait for, or why not, or both: then
// it may be otherwise soon.
func (s *slot) tryEnter(to phase) (wait <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	hungUp := s.line != nil && s.line.hungUp()
	if s.phase == parked && hungUp {
		s.hangUp()
	}
	switch {
	case s.gone:
		return nil, refuse(abi.StatusNoSlot, "slot %s was destroyed", s.rec.Name)
	case s.phase == closed && s.locked && to == opening:
		return nil, refuse(abi.StatusLocked, "slot %s is locked by an administrator", s.rec.Name)
	case s.phase == closed:
		s.set(to)
		return nil, nil
	case !hungUp:
		err = refuse(abi.StatusInUse, "slot %s is in use", s.rec.Name)
	}
	return s.next(), err
}

// leave makes a slot closed again, after busy or a failed opening. fault is kept
// as the reason why it cannot be opened; nil clears it.
func (s *slot) leave(fault error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
	s.hangUp()
}

// hangUp ends the line, if there is one, and closes the slot.
//
// Preconditions: s.mu is held; there is no worker.
func (s *slot) hangUp() {
	if s.line != nil {
		s.card.watch.remove(s.ticket, s.line.data)
		s.line.close()
	}
	s.line, s.ticket = nil, 0
	s.set(closed)
}

// kill ends the worker by force.
func (s *slot) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run != nil {
		s.run.proc.Kill()
	}
}

// verify says whether a proof opens the slot.
func (s *slot) verify(msg []byte, p abi.Proof) bool {
	return ed25519.Verify(s.rec.AccessKey[:], msg, p[:])
}

// life is the phase as clients know it.
//
// Preconditions: s.mu is held.
func (s *slot) life() abi.SlotLife {
	switch {
	case s.phase == live, s.phase == parking, s.phase == opening:
		return abi.LifeLive
	case s.phase == parked:
		return abi.LifeParked
	case s.locked:
		return abi.LifeLocked
	case s.fault != nil:
		return abi.LifeFaulted
	}
	return abi.LifeClosed
}

// info describes the slot.
func (s *slot) info() abi.SlotInfo {
	epoch, generation := s.card.store.Newest(s.rec.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	i := abi.SlotInfo{
		Number: s.rec.Number, ID: s.rec.ID, Name: s.rec.Name, Life: s.life(),
		Keys: s.rec.Keys, Banks: s.rec.Banks, Generation: generation, Epoch: epoch,
		Created: s.rec.Created, LastUsed: s.lastUsed, Commands: s.commands, Restarts: s.restarts,
		AccessKey: s.rec.AccessKey, EKNames: abi.EKDigest(s.rec.EKs),
	}
	if s.run != nil {
		i.WorkerPID = uint32(s.run.proc.PID())
		i.Commands += s.run.page.Commands()
	}
	return i
}
