// SPDX-License-Identifier: Apache-2.0

package coproc

import (
	"errors"
	"strings"

	"hwvtpm/coproc/abi"
)

// Causes of an [*Error]; test for them with errors.Is.
var (
	// ErrClosed: the slot or the device was closed.
	ErrClosed = errors.New("closed")
	// ErrNotFound: no such slot.
	ErrNotFound = errors.New("no such slot")
	// ErrExists: the slot is there already.
	ErrExists = errors.New("slot exists already")
	// ErrInUse: somebody else holds the slot or its state.
	ErrInUse = errors.New("in use by another process")
	// ErrCorrupt: the stored state is damaged or not ours. It is never
	// replaced by a new TPM; an operator must restore or remove it.
	ErrCorrupt = errors.New("stored state is corrupt")
	// ErrForeign: a stored file belongs to another slot.
	ErrForeign = errors.New("stored state belongs to another slot")
	// ErrFailed: the exact state could not be kept; every command is
	// answered with TPM_RC_FAILURE until Reset or a new run.
	ErrFailed = errors.New("slot failed")
	// ErrCanceled: the call was given up because its context ended.
	ErrCanceled = errors.New("canceled")
	// ErrTimeout: the card did not answer in time.
	ErrTimeout = errors.New("timed out")
	// ErrDenied: the card wants another key, or an administrator.
	ErrDenied = errors.New("access denied")
	// ErrRollback: the stored state is older than the newest one that the
	// card knows. Only an administrator can adopt it.
	ErrRollback = errors.New("stored state is older than the newest known")
	// ErrFull: the card has no slot or no space left.
	ErrFull = errors.New("card is full")
	// ErrLocked: an administrator has locked the slot.
	ErrLocked = errors.New("slot is locked")
	// ErrWrongKey: the card's key does not open the stored state.
	ErrWrongKey = errors.New("stored state was sealed with another key")
	// ErrStorage: the card could not write its state; the one before stands.
	ErrStorage = errors.New("state could not be written")
	// ErrUnsupported: the card does not know the request or the version.
	ErrUnsupported = errors.New("not supported")
)

// Error is the one error type of this package and of all drivers.
type Error struct {
	Op     string     // "open", "power-on", "reset", "execute", ...
	Slot   string     // slot name; empty for the device
	Status abi.Status // status the card gave; StatusOK if it gave none
	Err    error      // cause: a sentinel above, possibly wrapped, or an OS error
}

// Error implements error.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("coproc: ")
	b.WriteString(e.Op)
	if e.Slot != "" {
		b.WriteString(" slot ")
		b.WriteString(e.Slot)
	}
	if e.Status != abi.StatusOK {
		b.WriteString(": card says ")
		b.WriteString(e.Status.String())
	}
	if e.Err != nil {
		b.WriteString(": ")
		b.WriteString(e.Err.Error())
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// StatusError gives the sentinel that a card's status stands for, or nil for
// StatusOK. Drivers use it so that all of them map alike.
func StatusError(s abi.Status) error {
	switch s {
	case abi.StatusOK:
		return nil
	case abi.StatusInUse:
		return ErrInUse
	case abi.StatusCorrupt:
		return ErrCorrupt
	case abi.StatusForeign:
		return ErrForeign
	case abi.StatusFailed:
		return ErrFailed
	case abi.StatusBadOpcode, abi.StatusBadVersion, abi.StatusUnsupported:
		return ErrUnsupported
	case abi.StatusNoSlot:
		return ErrNotFound
	}
	return manageError(s)
}

// manageError is StatusError for what the management of slots adds.
func manageError(s abi.Status) error {
	switch s {
	case abi.StatusDenied:
		return ErrDenied
	case abi.StatusExists:
		return ErrExists
	case abi.StatusRollback:
		return ErrRollback
	case abi.StatusFull:
		return ErrFull
	case abi.StatusLocked:
		return ErrLocked
	case abi.StatusWrongKey:
		return ErrWrongKey
	case abi.StatusStorage:
		return ErrStorage
	}
	return errCard
}

// errCard stands for a status that means a bug in the driver or the card.
var errCard = errors.New("request refused")
