// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
)

var (
	// ErrClosed means that the client was closed or that its socket ended.
	ErrClosed = errors.New("agent: closed")
	// ErrRestarted means that the guest came up again before it answered: the
	// operation may have been executed or not.
	ErrRestarted = errors.New("agent: guest restarted before it answered")
	// ErrLineTooLong means that a line of more than MaxLine bytes was skipped.
	ErrLineTooLong = errors.New("agent: line too long")
)

// OpError is what the agent itself answered to an operation.
type OpError struct {
	Op      string // the operation
	Message string // the agent's words
}

func (e *OpError) Error() string { return fmt.Sprintf("agent: %s: %s", e.Op, e.Message) }
