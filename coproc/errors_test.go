// SPDX-License-Identifier: Apache-2.0

package coproc

import (
	"errors"
	"fmt"
	"testing"

	"hwvtpm/coproc/abi"
)

func TestError(t *testing.T) {
	cause := fmt.Errorf("somewhere: %w", ErrCorrupt)
	err := error(&Error{Op: "open", Slot: "default", Status: abi.StatusCorrupt, Err: cause})
	if !errors.Is(err, ErrCorrupt) {
		t.Errorf("%v is not its cause", err)
	}
	const want = "coproc: open slot default: card says corrupt: somewhere: stored state is corrupt"
	if err.Error() != want {
		t.Errorf("Error() = %q, want %q", err, want)
	}
}

func TestStatusError(t *testing.T) {
	for status, want := range map[abi.Status]error{
		abi.StatusOK:         nil,
		abi.StatusInUse:      ErrInUse,
		abi.StatusCorrupt:    ErrCorrupt,
		abi.StatusForeign:    ErrForeign,
		abi.StatusFailed:     ErrFailed,
		abi.StatusBadOpcode:  ErrUnsupported,
		abi.StatusBadVersion: ErrUnsupported,
		abi.StatusNoSlot:     ErrNotFound,
		abi.StatusDenied:     ErrDenied,
		abi.StatusExists:     ErrExists,
		abi.StatusRollback:   ErrRollback,
		abi.StatusFull:       ErrFull,
		abi.StatusLocked:     ErrLocked,
		abi.StatusWrongKey:   ErrWrongKey,
		abi.StatusStorage:    ErrStorage,
	} {
		if got := StatusError(status); got != want {
			t.Errorf("StatusError(%v) = %v, want %v", status, got, want)
		}
	}
	if StatusError(abi.StatusInternal) == nil || StatusError(0xffff) == nil {
		t.Error("an unknown failure is no error")
	}
}
