// SPDX-License-Identifier: Apache-2.0

package virtqueue

import (
	"errors"
	"fmt"
)

// The reasons this package refuses something; test for them with [errors.Is].
var (
	// ErrNoRegion: an address range is not guest memory.
	ErrNoRegion = errors.New("address range outside guest memory")
	// ErrCrossRegion: a range begins in one region and ends past it. Ranges are
	// never joined across regions, even where these touch: two regions are two
	// mappings, and what follows the first in this process is not the second.
	ErrCrossRegion = errors.New("address range crosses a memory region")
	// ErrRegions: the memory table itself is invalid.
	ErrRegions = errors.New("invalid memory table")
	// ErrConfig: a Config names an impossible queue.
	ErrConfig = errors.New("invalid queue configuration")
	// ErrIndex: a ring index names more, or other, entries than the ring has.
	ErrIndex = errors.New("ring index out of range")
	// ErrChain: a descriptor chain breaks a rule of VIRTIO 1.3 (too long,
	// looping, readable after writable, too many bytes).
	ErrChain = errors.New("malformed descriptor chain")
	// ErrIndirect: an indirect descriptor or its table breaks a rule.
	ErrIndirect = errors.New("malformed indirect descriptor")
	// ErrMisuse: the device called with a chain it does not hold, or claims to
	// have written more than the chain has room for.
	ErrMisuse = errors.New("chain misused")
	// ErrClosed: the queue was closed.
	ErrClosed = errors.New("queue closed")
)

// RingError says that the driver broke the ring: no later Pop can succeed, and
// the caller stops this ring (and this ring only).
type RingError struct {
	Op    string // "pop"
	Index uint16 // split: available index of the entry at fault; packed: ring slot of the chain's first descriptor
	Err   error  // wraps one of this package's errors
}

// Error implements error.
func (e *RingError) Error() string {
	return fmt.Sprintf("virtqueue %s at index %d: %v", e.Op, e.Index, e.Err)
}

// Unwrap returns the cause.
func (e *RingError) Unwrap() error { return e.Err }
