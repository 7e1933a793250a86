// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"fmt"

	"hwvtpm/internal/memfault"
)

// Sentinels. Test for them with errors.Is.
var (
	// ErrProtocol: the front-end broke the vhost-user protocol.
	ErrProtocol = errors.New("protocol violation")
	// ErrUnknownRequest: a message type that this back-end does not serve.
	ErrUnknownRequest = errors.New("unknown request")
	// ErrBusy: another session is live; a device has one front-end at a time.
	ErrBusy = errors.New("another session is live")
	// ErrClosed: the server was closed.
	ErrClosed = errors.New("server closed")
	// ErrNoChannel: there is no session, or its front-end gave no channel for
	// messages from the back-end.
	ErrNoChannel = errors.New("no channel to the front-end")
	// ErrMemoryFault: shared memory vanished under us, mostly because the
	// front-end truncated the file behind it.
	ErrMemoryFault = memfault.Err
)

// Error is the one error type of this package: what failed while which
// message was served. Err is never nil.
type Error struct {
	Request Request // the message, or 0 while none was being served
	Queue   int     // the vring concerned, or -1
	Err     error
}

// Error implements error.
func (e *Error) Error() string {
	switch {
	case e.Request != 0 && e.Queue >= 0:
		return fmt.Sprintf("vhost-user: %v: vring %d: %v", e.Request, e.Queue, e.Err)
	case e.Request != 0:
		return fmt.Sprintf("vhost-user: %v: %v", e.Request, e.Err)
	case e.Queue >= 0:
		return fmt.Sprintf("vhost-user: vring %d: %v", e.Queue, e.Err)
	}
	return fmt.Sprintf("vhost-user: %v", e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
