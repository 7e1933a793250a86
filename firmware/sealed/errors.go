// SPDX-License-Identifier: Apache-2.0

package sealed

import (
	"errors"

	"hwvtpm/internal/durable"
)

// Causes of failure. None is ever cured by making something anew silently.
var (
	// ErrWrongKey: the data was sealed under another card storage key.
	ErrWrongKey = errors.New("sealed under another key")

	// ErrDamaged: the data is not what was sealed.
	ErrDamaged = errors.New("sealed data is damaged")

	// ErrForeign: the data is intact, but of another slot or kind.
	ErrForeign = errors.New("sealed data belongs elsewhere")

	// ErrVersion: the data needs a newer program.
	ErrVersion = errors.New("sealed data needs a newer program")

	// ErrGeneration: a generation was used already.
	ErrGeneration = errors.New("generation was used already")

	// ErrRollback: the data is intact, but older than what is anchored.
	ErrRollback = errors.New("older than what is anchored")

	// ErrCounter: the monotonic counter does not fit the record: it was
	// replaced or set back, or something else increments it.
	ErrCounter = errors.New("monotonic counter does not fit")

	// ErrUnsure: a file was written, and is in place, but may not outlive a power
	// cut. Who depends on either content has to write it again.
	ErrUnsure = durable.ErrUnsure
)
