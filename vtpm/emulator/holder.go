// SPDX-License-Identifier: Apache-2.0

package emulator

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"hwvtpm/coproc"
)

// takePatience is how long a slot is waited for that somebody else has: the
// process that a machine migrates away from may be just about to let go of it.
const (
	takePatience = 5 * time.Second
	takeRetry    = 20 * time.Millisecond
)

// errNoMover: the slot's state cannot leave its card.
var errNoMover = errors.New("emulator: the slot's state cannot be moved")

// Holder is a slot for a Server that is opened only when it is needed, and let go
// of when its state has gone out. So two processes can hand a slot over, as swtpm
// does with its lock:
//
//	source                             destination
//	 | GET_STATEBLOB 1, 2               |  the slot is not touched
//	 | GET_STATEBLOB 3: lets go         |
//	 |                                  | SET_STATEBLOB, INIT: takes the slot
//	 | LOCK_STORAGE, or a command,      |
//	 | if the migration has failed:     |
//	 | takes it back, unless it was     |
//	 | used at the destination          |
//
// It implements coproc.Slot, and its methods may be called as those of one.
type Holder struct {
	open func(context.Context) (coproc.Slot, error)
	live atomic.Pointer[coproc.Slot] // the slot, for who cannot wait

	mu     sync.Mutex // guards what follows
	closed bool
	slot   coproc.Slot
	run    coproc.RunID       // of the slot
	saved  *coproc.SavedState // the present state; nil: not known
	out    *coproc.SavedState // has gone out, and the slot with it
	in     coproc.SavedState  // for the next PowerOn
}

var (
	_ coproc.Slot   = (*Holder)(nil)
	_ coproc.Hasher = (*Holder)(nil)
	_ StateMover    = (*Holder)(nil)
	_ lender        = (*Holder)(nil)
)

// lender is a slot that can be let go of.
type lender interface {
	// letGo lets go of the slot if its state has gone out.
	letGo() error
	// takeBack takes it back.
	takeBack(ctx context.Context) error
	// release lets go of the slot: the machine is gone.
	release() error
}

// NewHolder gives a slot that open opens. coproc.ErrInUse of it is waited for.
func NewHolder(open func(context.Context) (coproc.Slot, error)) *Holder { return &Holder{open: open} }

// take opens the slot, and brings it to the state that has gone out, if one has.
//
// Preconditions: h.mu is held.
func (h *Holder) take(ctx context.Context) error {
	switch {
	case h.closed:
		return coproc.ErrClosed
	case h.slot != nil:
		return nil
	}
	s, err := h.await(ctx)
	if err != nil {
		return err
	}
	if h.out != nil {
		if err := h.resume(ctx, s); err != nil {
			return errors.Join(fmt.Errorf("the slot cannot be taken back: %w", err), s.Close())
		}
	}
	h.slot, h.out = s, nil
	h.live.Store(&s)
	return nil
}

// await opens the slot as soon as nobody else has it.
func (h *Holder) await(ctx context.Context) (coproc.Slot, error) {
	for end := time.Now().Add(takePatience); ; {
		s, err := h.open(ctx)
		if err == nil || !errors.Is(err, coproc.ErrInUse) || time.Now().After(end) {
			return s, err
		}
		sleep(ctx, takeRetry)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func (h *Holder) resume(ctx context.Context, s coproc.Slot) error {
	m, ok := s.(coproc.StateMover)
	if !ok {
		return errNoMover
	}
	_, err := m.LoadState(ctx, h.run, *h.out)
	return err
}

// drop closes the slot.
//
// Preconditions: h.mu is held.
func (h *Holder) drop() error {
	if h.slot == nil {
		return nil
	}
	err := h.slot.Close()
	h.slot, h.saved = nil, nil
	h.live.Store(nil)
	return err
}

// PowerOn implements coproc.Slot. It continues from the state that was loaded, if
// there is one. That is a run of its own, since the machine may have had another
// before.
func (h *Holder) PowerOn(ctx context.Context, run coproc.RunID) (coproc.PowerOnResult, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	in := h.in
	h.in, h.saved = coproc.SavedState{}, nil
	if in.Permanent == nil && in.Volatile == nil {
		h.out = nil // it is abandoned
		if err := h.take(ctx); err != nil {
			return coproc.PowerOnResult{}, err
		}
		h.run = run
		return h.slot.PowerOn(ctx, run)
	}
	h.out = nil
	if err := h.take(ctx); err != nil {
		return coproc.PowerOnResult{}, err
	}
	m, ok := h.slot.(coproc.StateMover)
	if !ok {
		return coproc.PowerOnResult{}, errNoMover
	}
	h.run = derivedRun(run)
	_, err := m.LoadState(ctx, h.run, in)
	return coproc.PowerOnResult{Resumed: true}, err
}

// derivedRun is a run that never was.
func derivedRun(run coproc.RunID) coproc.RunID {
	h := sha256.New()
	h.Write([]byte("hwvtpm loaded run\x00"))
	h.Write(run[:])
	h.Write([]byte(rand.Text()))
	return coproc.RunID(h.Sum(nil))
}

// Reset implements coproc.Slot.
func (h *Holder) Reset(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.saved = nil
	if err := h.take(ctx); err != nil {
		return err
	}
	return h.slot.Reset(ctx)
}

// Execute implements coproc.Slot.
func (h *Holder) Execute(ctx context.Context, cmd coproc.Command, resp []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.saved = nil
	if err := h.take(ctx); err != nil {
		return putError(resp, rcFailure), err
	}
	return h.slot.Execute(ctx, cmd, resp)
}

// HashSequence implements coproc.Hasher.
func (h *Holder) HashSequence(ctx context.Context, data []byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.saved = nil
	if err := h.take(ctx); err != nil {
		return err
	}
	s, ok := h.slot.(coproc.Hasher)
	if !ok {
		return &coproc.Error{Op: "hash sequence", Err: coproc.ErrUnsupported}
	}
	return s.HashSequence(ctx, data)
}

// Cancel implements coproc.Slot.
func (h *Holder) Cancel() error {
	if s := h.live.Load(); s != nil {
		return (*s).Cancel()
	}
	return nil
}

// Health implements coproc.Slot.
func (h *Holder) Health(ctx context.Context) (coproc.Health, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.slot == nil {
		return coproc.Health{}, nil
	}
	return h.slot.Health(ctx)
}

// Close implements coproc.Slot.
func (h *Holder) Close() error {
	if s := h.live.Load(); s != nil {
		_ = (*s).Cancel() // a command that runs has h.mu
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	return h.drop()
}

// SaveState implements StateMover.
func (h *Holder) SaveState(ctx context.Context, kind BlobKind) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.saved == nil {
		if err := h.take(ctx); err != nil {
			return nil, err
		}
		m, ok := h.slot.(coproc.StateMover)
		if !ok {
			return nil, errNoMover
		}
		st, err := m.SaveState(ctx)
		if err != nil {
			return nil, err
		}
		h.saved = &st
	}
	if kind == BlobPermanent {
		return h.saved.Permanent, nil
	}
	return h.saved.Volatile, nil
}

// LoadState implements StateMover. The slot judges the state when both parts are
// there.
func (h *Holder) LoadState(_ context.Context, kind BlobKind, blob []byte) error {
	if len(blob) == 0 {
		return errors.New("emulator: an empty state")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if kind == BlobPermanent {
		h.in.Permanent = bytes.Clone(blob)
	} else {
		h.in.Volatile = bytes.Clone(blob)
	}
	return nil
}

func (h *Holder) letGo() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.saved == nil {
		return nil
	}
	h.out = h.saved
	return h.drop()
}

func (h *Holder) takeBack(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.out == nil {
		return nil // nothing has gone out
	}
	return h.take(ctx)
}

func (h *Holder) release() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.in, h.out = coproc.SavedState{}, nil
	return h.drop()
}
