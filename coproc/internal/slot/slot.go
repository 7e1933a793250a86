// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/internal/turn"
)

// Slot is one slot of a card. It outlives the workers behind it. It
// implements coproc.Slot.
type Slot struct {
	cfg Config

	// live is the worker for those that cannot wait for mu: Cancel, Close.
	live     atomic.Pointer[Worker]
	running  atomic.Uint64 // sequence number being executed, 0: none
	canceled atomic.Uint64 // sequence number canceled last
	closing  atomic.Bool

	mu       sync.Mutex // serializes the calls, guards what follows
	w        Worker     // nil: died and not replaced yet
	closed   bool
	powered  bool         // PowerOn was called
	run      coproc.RunID // of the last PowerOn
	failed   error        // why the slot answers failure only, nil: it works
	seq      uint64       // last sequence number used
	recorded uint64       // last sequence number the worker had at power-on
	restarts uint64
	turn     turn.Turn      // of whoever calls Execute: its worker is waited for in system calls
	sub      abi.Submission // of Execute; here, since what passes an interface escapes
}

var _ coproc.Slot = (*Slot)(nil)

// New gives the slot that w, which was started already, is the worker of.
func New(cfg Config, w Worker) *Slot {
	s := &Slot{cfg: cfg}
	s.adopt(w)
	return s
}

// Worker gives the worker of the moment, or nil.
func (s *Slot) Worker() Worker {
	if w := s.live.Load(); w != nil {
		return *w
	}
	return nil
}

// adopt makes w the slot's worker. mu is held, or the slot is not shared yet.
func (s *Slot) adopt(w Worker) {
	s.w = w
	s.live.Store(&w)
	s.seq = max(s.seq, w.Identity().LastSeq)
}

// Restarts is how often the worker was replaced.
func (s *Slot) Restarts() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.restarts
}

// begin takes the lock for an operation. The caller unlocks if it succeeds.
func (s *Slot) begin(ctx context.Context, op string) error {
	if err := ctx.Err(); err != nil {
		return s.opError(op, fmt.Errorf("%w: %w", coproc.ErrCanceled, err))
	}
	s.mu.Lock()
	if s.closed || s.closing.Load() {
		s.mu.Unlock()
		return s.opError(op, coproc.ErrClosed)
	}
	return nil
}

// PowerOn implements coproc.Slot.
func (s *Slot) PowerOn(ctx context.Context, run coproc.RunID) (coproc.PowerOnResult, error) {
	if err := s.begin(ctx, "power-on"); err != nil {
		return coproc.PowerOnResult{}, err
	}
	defer s.mu.Unlock()
	s.powered, s.run = true, run
	var r abi.PowerOnReply
	err := s.retry(func() (err error) {
		r, err = s.powerOn()
		return err
	})
	if err != nil {
		return coproc.PowerOnResult{}, s.opError("power-on", s.fail(err))
	}
	s.failed = nil
	return coproc.PowerOnResult{Resumed: r.Resumed && !r.Pristine}, nil
}

// retry does f again when the worker dies over it, which is safe for what is
// idempotent.
func (s *Slot) retry(f func() error) error {
	err := f()
	for range MaxKills {
		if err == nil || s.w != nil || s.closing.Load() || permanent(err) {
			break
		}
		err = f()
	}
	return err
}

// powerOn powers the worker on, and starts one before if there is none.
func (s *Slot) powerOn() (abi.PowerOnReply, error) {
	if err := s.ensure(); err != nil {
		return abi.PowerOnReply{}, err
	}
	c, err := s.admin(&abi.Submission{Op: abi.OpPowerOn, Payload: s.run[:]})
	if err != nil {
		return abi.PowerOnReply{}, err
	}
	r, err := abi.ParsePowerOnReply(c.Payload)
	s.recorded = r.LastSeq
	s.seq = max(s.seq, r.LastSeq)
	return r, err
}

// Reset implements coproc.Slot.
func (s *Slot) Reset(ctx context.Context) error {
	if err := s.begin(ctx, "reset"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if !s.powered {
		return s.opError("reset", fmt.Errorf("not powered on: %w", coproc.ErrUnsupported))
	}
	if err := s.retry(s.reset); err != nil {
		return s.opError("reset", s.fail(err))
	}
	s.failed = nil
	return nil
}

// reset resets the TPM. A worker that is gone is brought back first; whether
// it could restore the run does not matter, since the reset ends that state.
func (s *Slot) reset() error {
	if s.w == nil {
		if _, err := s.powerOn(); err != nil && s.w == nil {
			return err
		}
	}
	_, err := s.admin(&abi.Submission{Op: abi.OpReset})
	return err
}

// admin runs a submission other than OpExecute. If the worker dies over it,
// it is gone; the caller may start over.
func (s *Slot) admin(sub *abi.Submission) (abi.Completion, error) {
	c, err := Call(s.w, sub, s.cfg.AdminTimeout)
	if err != nil {
		s.drop()
		return c, fmt.Errorf("engine is gone: %w", err)
	}
	if c.Status != abi.StatusOK {
		err := coproc.StatusError(c.Status)
		if text := abi.Text(c.Payload); text != "" {
			err = fmt.Errorf("%w: %s", err, text)
		}
		return c, &coproc.Error{Op: "admin", Slot: s.cfg.Name, Status: c.Status, Err: err}
	}
	return c, nil
}

// fail makes the slot answer failure only and gives the error to return.
func (s *Slot) fail(err error) error {
	s.failed = err
	return err
}

// Cancel implements coproc.Slot. A worker that comes after this one is told as well.
func (s *Slot) Cancel() error {
	seq := s.running.Load()
	if seq == 0 {
		return nil
	}
	s.canceled.Store(seq) // first: a worker that is not seen here looks at it later
	w := s.Worker()
	if w == nil {
		return nil
	}
	return s.opError("cancel", w.Cancel(seq))
}

// Health implements coproc.Slot. It waits for the running command.
func (s *Slot) Health(ctx context.Context) (coproc.Health, error) {
	if err := s.begin(ctx, "health"); err != nil {
		return coproc.Health{}, err
	}
	defer s.mu.Unlock()
	h := coproc.Health{State: abi.SlotFailed, Restarts: s.restarts}
	c, err := s.askHealth()
	if err != nil {
		return h, nil // no worker to ask: that is the answer
	}
	h.Restarts = s.restarts
	r, err := abi.ParseHealthReply(c.Payload)
	if err != nil {
		return h, s.opError("health", err)
	}
	if s.failed == nil {
		h.State = r.State
	}
	h.WorkerPID, h.Commands, h.Checkpoints = int(r.PID), r.Commands, r.Checkpoints
	h.Journaled, h.DurableWrites = r.Journaled, r.DurableWrites
	h.Generation, h.EngineVersion = r.Generation, r.EngineVersion
	return h, nil
}

// askHealth asks the worker, after bringing back one that died meanwhile.
func (s *Slot) askHealth() (abi.Completion, error) {
	health := &abi.Submission{Op: abi.OpHealth}
	if s.w != nil {
		if c, err := s.admin(health); err == nil {
			return c, nil
		}
	}
	if s.failed == nil && s.powered {
		if err := s.revive(); err != nil {
			return abi.Completion{}, s.fail(err)
		}
	}
	if s.w == nil {
		return abi.Completion{}, coproc.ErrFailed
	}
	return s.admin(health)
}

// Close implements coproc.Slot.
func (s *Slot) Close() error {
	if s.closing.Swap(true) {
		s.mu.Lock() // the first Close has the lock until all is ended
		defer s.mu.Unlock()
		return nil
	}
	s.Cancel()
	if w := s.Worker(); w != nil {
		t := time.AfterFunc(s.cfg.CancelGrace, w.Shutdown)
		defer t.Stop()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.cfg.Release(s)
	if s.w == nil {
		return nil
	}
	err := s.w.Stop(s.cfg.AdminTimeout)
	s.w = nil
	s.live.Store(nil)
	// A worker that died unnoticed, since no command came, needs no word: what was
	// acknowledged is stored.
	if errors.Is(err, syscall.EPIPE) {
		return nil
	}
	return s.opError("close", err)
}
