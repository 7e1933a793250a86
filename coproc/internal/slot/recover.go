// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"hwvtpm/coproc"
)

// backoff is how long to wait before each try to start a worker, and then again
// and again the last. The first is at once: a crash is rare, and the guest
// waits.
var backoff = [...]time.Duration{0, 10 * time.Millisecond, 50 * time.Millisecond, 250 * time.Millisecond, time.Second}

// defaultPatience leaves time for five tries that fail at once.
const defaultPatience = 1500 * time.Millisecond

// drop ends a worker that is dead or not to be trusted any more.
func (s *Slot) drop() {
	if s.w == nil {
		return
	}
	s.live.Store(nil)
	how := s.w.Kill()
	if s.loud() {
		s.cfg.Logger.Warn("engine ended", "state", how)
	}
	s.w = nil
}

// loud tells whether a restart is worth a log line. A guest that has found a
// way to kill its engine must not fill the host's log.
func (s *Slot) loud() bool { return s.restarts < 16 || s.restarts&(s.restarts-1) == 0 }

// ensure starts a worker if there is none.
func (s *Slot) ensure() error {
	if s.w != nil {
		return nil
	}
	w, err := s.cfg.Start()
	if err != nil {
		return err
	}
	s.restarts++
	s.adopt(w)
	return nil
}

// revive brings a dead worker back to the state of the last answer. It begins no
// try when the patience is over.
func (s *Slot) revive() error {
	s.drop()
	begin := time.Now()
	var err error
	for i := 0; ; i++ {
		wait := backoff[min(i, len(backoff)-1)]
		if i > 0 && time.Since(begin)+wait > s.cfg.patience() {
			break
		}
		time.Sleep(wait)
		if s.closing.Load() {
			return coproc.ErrClosed
		}
		if err = s.resume(); err == nil {
			// A Close meanwhile has canceled nothing and waits for us: the
			// command must not be sent to the new worker.
			if s.closing.Load() {
				return coproc.ErrClosed
			}
			if s.loud() {
				s.cfg.Logger.Warn("engine was restarted", "restarts", s.restarts, "tries", i+1)
			}
			return nil
		}
		if permanent(err) {
			break
		}
	}
	s.cfg.Logger.Error("engine cannot be brought back", "error", err)
	return fmt.Errorf("engine cannot be brought back: %w: %w", coproc.ErrFailed, err)
}

// resume powers the worker on and insists on the state of this run.
func (s *Slot) resume() error {
	r, err := s.powerOn()
	if err == nil && !r.Resumed {
		s.drop()
		return fmt.Errorf("state of this run is gone: %w", coproc.ErrFailed)
	}
	return err
}

// lasting are the causes that do not go away by themselves.
var lasting = []error{
	coproc.ErrFailed, coproc.ErrCorrupt, coproc.ErrForeign, coproc.ErrRollback, coproc.ErrWrongKey,
	coproc.ErrNotFound, coproc.ErrDenied, coproc.ErrLocked, coproc.ErrUnsupported,
}

// permanent tells whether another try would find the same.
func permanent(err error) bool {
	return slices.ContainsFunc(lasting, func(e error) bool { return errors.Is(err, e) })
}
