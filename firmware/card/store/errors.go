// SPDX-License-Identifier: Apache-2.0

package store

import "errors"

// Causes of failure beside those of package sealed.
var (
	// ErrLocked: another process has the store open.
	ErrLocked = errors.New("store is in use by another process")

	// ErrIncomplete: the store is not whole. It is not made good by anything
	// new: restore it, or name an empty directory for a new card.
	ErrIncomplete = errors.New("store is not whole")

	// ErrFailed: an earlier write of the table may or may not have happened.
	ErrFailed = errors.New("table may or may not be written: open the store again")

	// ErrFull: the table takes no more slots.
	ErrFull = errors.New("no slot is left")

	// ErrHeld: a worker of an earlier process has the slot's volatile file still.
	ErrHeld = errors.New("a worker of a card that is gone has not ended yet")

	// ErrCurrent: there is nothing to adopt.
	ErrCurrent = errors.New("state is current already")
)
