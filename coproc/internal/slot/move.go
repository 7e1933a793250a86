// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"context"
	"errors"
	"fmt"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
)

var _ coproc.StateMover = (*Slot)(nil)

// moveTries is how often a state is moved from the start again, because the
// worker that had a part of it was parked or died.
const moveTries = 4

// SaveState implements coproc.StateMover.
func (s *Slot) SaveState(ctx context.Context) (coproc.SavedState, error) {
	const op = "save state"
	if err := s.begin(ctx, op); err != nil {
		return coproc.SavedState{}, err
	}
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return coproc.SavedState{}, s.opError(op, err)
	}
	for try := 1; ; try++ {
		if s.w == nil {
			if err := s.revive(); err != nil {
				return coproc.SavedState{}, s.opError(op, s.fail(err))
			}
		}
		st, err := s.saveState()
		if err == nil || try == moveTries || !interrupted(s.w, err) {
			return st, s.opError(op, err)
		}
	}
}

// interrupted tells whether what failed may go well from the start.
func interrupted(w Worker, err error) bool {
	e, ok := errors.AsType[*coproc.Error](err)
	return w == nil && !permanent(err) || ok && e.Status == abi.StatusOrder
}

// saveState has the worker save the state, and reads it.
func (s *Slot) saveState() (coproc.SavedState, error) {
	c, err := s.admin(&abi.Submission{Op: abi.OpStateSave})
	if err != nil {
		return coproc.SavedState{}, err
	}
	sizes, err := abi.ParseStateSizes(c.Payload)
	if err != nil {
		return coproc.SavedState{}, err
	}
	var st coproc.SavedState
	if st.Permanent, err = s.readPart(abi.StatePermanent, int(sizes.Permanent)); err == nil {
		st.Volatile, err = s.readPart(abi.StateVolatile, int(sizes.Volatile))
	}
	return st, err
}

func (s *Slot) readPart(part abi.StatePart, size int) ([]byte, error) {
	b := make([]byte, 0, size)
	for len(b) < size {
		place := abi.AppendStatePlace(nil, abi.StatePlace{Part: part, Offset: uint32(len(b))})
		c, err := s.admin(&abi.Submission{Op: abi.OpStateRead, Payload: place})
		if err != nil {
			return nil, err
		}
		if len(c.Payload) == 0 || len(c.Payload) > size-len(b) {
			return nil, fmt.Errorf("%d bytes at %d of a state of %d: %w", len(c.Payload), len(b), size, abi.ErrMalformed)
		}
		b = append(b, c.Payload...)
	}
	return b, nil
}

// LoadState implements coproc.StateMover.
func (s *Slot) LoadState(ctx context.Context, run coproc.RunID, st coproc.SavedState) (coproc.PowerOnResult, error) {
	const op = "load state"
	if err := s.begin(ctx, op); err != nil {
		return coproc.PowerOnResult{}, err
	}
	defer s.mu.Unlock()
	sizes := abi.StateSizes{Permanent: uint32(len(st.Permanent)), Volatile: uint32(len(st.Volatile))}
	if _, err := abi.ParseStateSizes(abi.AppendStateSizes(nil, sizes)); err != nil {
		return coproc.PowerOnResult{}, s.opError(op, fmt.Errorf("%w: %w", coproc.ErrCorrupt, err))
	}
	for try := 1; ; try++ {
		r, err := s.loadState(run, &st, sizes)
		if err == nil {
			s.powered, s.run, s.failed = true, run, nil
			s.recorded = r.LastSeq
			s.seq = max(s.seq, r.LastSeq)
			return coproc.PowerOnResult{Resumed: r.Resumed && !r.Pristine}, nil
		}
		if try == moveTries || s.closing.Load() || !interrupted(s.w, err) {
			return coproc.PowerOnResult{}, s.opError(op, err)
		}
	}
}

// loadState writes a state to the worker, and has it loaded. It may be done again:
// a worker that has loaded a state for a run knows it.
func (s *Slot) loadState(run coproc.RunID, st *coproc.SavedState, sizes abi.StateSizes) (abi.PowerOnReply, error) {
	if err := s.ensure(); err != nil {
		return abi.PowerOnReply{}, err
	}
	_, err := s.admin(&abi.Submission{Op: abi.OpStateBegin, Payload: abi.AppendStateSizes(nil, sizes)})
	if err == nil {
		err = s.writePart(abi.StatePermanent, st.Permanent)
	}
	if err == nil {
		err = s.writePart(abi.StateVolatile, st.Volatile)
	}
	if err != nil {
		return abi.PowerOnReply{}, err
	}
	c, err := s.admin(&abi.Submission{Op: abi.OpStateLoad, Payload: run[:]})
	if err != nil {
		return abi.PowerOnReply{}, err
	}
	return abi.ParsePowerOnReply(c.Payload)
}

func (s *Slot) writePart(part abi.StatePart, b []byte) error {
	msg := make([]byte, 0, abi.MaxPayload)
	for at := 0; at < len(b); {
		n := min(len(b)-at, abi.MaxStateChunk)
		msg = abi.AppendStatePlace(msg[:0], abi.StatePlace{Part: part, Offset: uint32(at)})
		msg = append(msg, b[at:at+n]...)
		if _, err := s.admin(&abi.Submission{Op: abi.OpStateWrite, Payload: msg}); err != nil {
			return err
		}
		at += n
	}
	return nil
}
