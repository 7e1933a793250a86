// SPDX-License-Identifier: Apache-2.0

package coproc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
)

// movable is a slot that can be a toldSlot.
type movable interface {
	Slot
	StateMover
}

// toldSlot stands before a slot whose TPM is told something of its host before the
// first command. What it does not say itself is the slot's.
//
//	PowerOn, Reset            first command, host answers
//	--------------> untold ------------------------------> told
//	                  ^  |    refused, and it must
//	                  |  +-------------------------------> refused: TPM_RC_FAILURE
//	Cancel meanwhile  +--+
//
// Who asks the host is the first command and not the power-on, since those who power
// a TPM on may not wait: QEMU waits for them.
type toldSlot struct {
	movable
	must bool // no command without
	note func(error)
	tell func(ctx context.Context, run RunID) error

	asking atomic.Pointer[context.CancelFunc] // ends a question to the host

	mu      sync.Mutex // held by all that run one at a time; guards what follows
	untold  bool
	refused error // why no command may run
	run     RunID
}

// errUntold: the slot was not powered on.
var errUntold = errors.New("not powered on")

func newToldSlot(s movable, must bool, note func(error), tell func(context.Context, RunID) error) *toldSlot {
	if note == nil {
		note = func(error) {}
	}
	t := &toldSlot{movable: s, must: must, note: note, tell: tell}
	if must {
		t.refused = errUntold
	}
	return t
}

// PowerOn implements Slot.
func (s *toldSlot) PowerOn(ctx context.Context, run RunID) (PowerOnResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.movable.PowerOn(ctx, run)
	if err == nil {
		s.run, s.untold, s.refused = run, !r.Resumed, nil
	}
	return r, err
}

// Reset implements Slot.
func (s *toldSlot) Reset(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.movable.Reset(ctx)
	if err == nil {
		s.untold, s.refused = true, nil
	}
	return err
}

// LoadState implements StateMover. What has to be told is told at once, so that a
// machine stays where it is rather than arrive with a TPM that fails.
func (s *toldSlot) LoadState(ctx context.Context, run RunID, st SavedState) (PowerOnResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.movable.LoadState(ctx, run, st)
	if err != nil {
		return r, err
	}
	s.run, s.untold, s.refused = run, s.must, nil
	if s.must {
		err = s.tellNow(ctx)
	}
	return r, err
}

// SaveState implements StateMover.
func (s *toldSlot) SaveState(ctx context.Context) (SavedState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.movable.SaveState(ctx)
}

// tellNow asks the host and tells the TPM. With an error no command may run; it is
// ErrCanceled if the question was given up, and is asked again then.
//
// Preconditions: s.mu is held.
func (s *toldSlot) tellNow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.asking.Store(&cancel)
	err := s.tell(ctx, s.run)
	s.asking.Store(nil)
	if err != nil && ctx.Err() != nil {
		return &Error{Op: "ask the host", Err: fmt.Errorf("%w: %w", ErrCanceled, err)}
	}
	s.untold = false
	s.note(err)
	if s.must {
		s.refused = err
	}
	return s.refused
}

// rcFailure is the response TPM_RC_FAILURE (Part 2, 6.6).
var rcFailure = [...]byte{0x80, 0x01, 0, 0, 0, 10, 0, 0, 0x01, 0x01}

// begin asks the host if that has to be done, and tells why nothing may run.
//
// Preconditions: s.mu is held.
func (s *toldSlot) begin(ctx context.Context, op string) error {
	if s.untold {
		if err := s.tellNow(ctx); errors.Is(err, ErrCanceled) {
			return err
		}
	}
	if s.refused != nil {
		return &Error{Op: op, Err: fmt.Errorf("%w: %w", ErrFailed, s.refused)}
	}
	return nil
}

// Execute implements Slot.
func (s *toldSlot) Execute(ctx context.Context, cmd Command, resp []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	const op = "execute"
	err := s.begin(ctx, op)
	switch {
	case err == nil:
		return s.movable.Execute(ctx, cmd, resp)
	case !errors.Is(err, ErrFailed):
		return 0, err
	case len(resp) < MaxTransfer:
		return 0, &Error{Op: op, Err: io.ErrShortBuffer}
	}
	return copy(resp, rcFailure[:]), err
}

// HashSequence implements Hasher.
func (s *toldSlot) HashSequence(ctx context.Context, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	const op = "hash sequence"
	if err := s.begin(ctx, op); err != nil {
		return err
	}
	h, ok := s.movable.(Hasher)
	if !ok {
		return &Error{Op: op, Err: ErrUnsupported}
	}
	return h.HashSequence(ctx, data)
}

// Cancel implements Slot.
func (s *toldSlot) Cancel() error {
	if cancel := s.asking.Load(); cancel != nil {
		(*cancel)()
		return nil
	}
	return s.movable.Cancel()
}

// Close implements Slot.
func (s *toldSlot) Close() error {
	if cancel := s.asking.Load(); cancel != nil {
		(*cancel)()
	}
	return s.movable.Close()
}
