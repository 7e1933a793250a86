// SPDX-License-Identifier: Apache-2.0

package coproc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
)

// HostPCRs gives the host's PCRs as they are to be mapped now. An error refuses the
// power-on, the load or the reset that asks.
type HostPCRs func(ctx context.Context) (PCRMap, error)

// WithHostPCRs gives a slot whose TPM has the host's PCRs: they are mapped at each
// power-on, load and reset, before any command. After one that was refused every
// command is answered with TPM_RC_FAILURE, until the next. A run that goes on keeps
// what it has until a reset. The slot given is not used beside the result.
// ErrUnsupported: it is no PCRMapper, or no StateMover.
func WithHostPCRs(s Slot, host HostPCRs) (Slot, error) {
	inner, ok := s.(mappable)
	if !ok {
		return nil, &Error{Op: "map PCRs", Err: ErrUnsupported}
	}
	m := &mappedSlot{mappable: inner, host: host}
	m.refused.Store(true)
	return m, nil
}

type mappable interface {
	Slot
	PCRMapper
	StateMover
}

// mappedSlot stands before a slot. What it does not say itself is the slot's.
type mappedSlot struct {
	mappable
	host HostPCRs

	// refused: no map is known to be in force, so that no command may run.
	refused atomic.Bool
}

// PowerOn implements Slot.
func (s *mappedSlot) PowerOn(ctx context.Context, run RunID) (PowerOnResult, error) {
	s.refused.Store(true)
	r, err := s.mappable.PowerOn(ctx, run)
	if err != nil {
		return r, err
	}
	if r.Resumed {
		s.refused.Store(false)
		return r, nil
	}
	return r, s.mapNow(ctx)
}

// LoadState implements StateMover. The state has the PCRs of the host that it was
// saved on, until it gets those of this one.
func (s *mappedSlot) LoadState(ctx context.Context, run RunID, st SavedState) (PowerOnResult, error) {
	s.refused.Store(true)
	r, err := s.mappable.LoadState(ctx, run, st)
	if err != nil {
		return r, err
	}
	return r, s.mapNow(ctx)
}

// Reset implements Slot.
func (s *mappedSlot) Reset(ctx context.Context) error {
	s.refused.Store(true)
	if err := s.mappable.Reset(ctx); err != nil {
		return err
	}
	return s.mapNow(ctx)
}

func (s *mappedSlot) mapNow(ctx context.Context) error {
	m, err := s.host(ctx)
	if err == nil && m.Banks() == 0 {
		err = errors.New("the host has no PCRs to map")
	}
	if err != nil {
		return &Error{Op: "map PCRs", Err: fmt.Errorf("PCRs of the host: %w", err)}
	}
	if err := s.MapPCRs(ctx, m); err != nil {
		return err
	}
	s.refused.Store(false)
	return nil
}

// rcFailure is the response TPM_RC_FAILURE (Part 2, 6.6).
var rcFailure = [...]byte{0x80, 0x01, 0, 0, 0, 10, 0, 0, 0x01, 0x01}

// Execute implements Slot.
func (s *mappedSlot) Execute(ctx context.Context, cmd Command, resp []byte) (int, error) {
	if !s.refused.Load() {
		return s.mappable.Execute(ctx, cmd, resp)
	}
	if len(resp) < MaxTransfer {
		return 0, &Error{Op: "execute", Err: io.ErrShortBuffer}
	}
	return copy(resp, rcFailure[:]), &Error{Op: "execute", Err: fmt.Errorf("%w: its PCRs are not the host's", ErrFailed)}
}
