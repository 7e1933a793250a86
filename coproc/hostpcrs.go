// SPDX-License-Identifier: Apache-2.0

package coproc

import (
	"context"
	"errors"
	"fmt"
)

// HostPCRs gives the host's PCRs as they are to be mapped now.
type HostPCRs func(ctx context.Context) (PCRMap, error)

// WithHostPCRs gives a slot whose TPM has the host's PCRs. The host is asked once
// after each power-on and reset, by the first command, which waits for the answer;
// nothing else does, and Cancel ends the wait with ErrCanceled. If the host refuses,
// or the card does, that command and all others are answered with TPM_RC_FAILURE and
// ErrFailed until the next power-on or reset: a TPM that came to life later would have
// missed what was to be measured until then. LoadState asks at once, and fails if it is
// refused. A run that goes on keeps what it has until a reset.
//
// note, if not nil, is told how each question ended. The slot given is not used beside
// the result. ErrUnsupported: it is no PCRMapper, or no StateMover.
func WithHostPCRs(s Slot, host HostPCRs, note func(error)) (Slot, error) {
	const op = "map PCRs"
	mapper, ok := s.(PCRMapper)
	mover, moves := s.(movable)
	if !ok || !moves {
		return nil, &Error{Op: op, Err: ErrUnsupported}
	}
	return newToldSlot(mover, true, note, func(ctx context.Context, _ RunID) error {
		m, err := host(ctx)
		if err == nil && m.Banks() == 0 {
			err = errors.New("there are none")
		}
		if err != nil {
			return &Error{Op: op, Err: fmt.Errorf("PCRs of the host: %w", err)}
		}
		return mapper.MapPCRs(ctx, m)
	}), nil
}
