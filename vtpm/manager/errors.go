// SPDX-License-Identifier: Apache-2.0

package manager

import "errors"

// Causes; test for them with errors.Is.
var (
	// ErrRequest: the request is not one that could be granted to anybody.
	ErrRequest = errors.New("bad request")
	// ErrDenied: it cannot be granted to this caller.
	ErrDenied = errors.New("denied")
	// ErrNotFound: the machine has no slot here.
	ErrNotFound = errors.New("no such machine")
	// ErrBusy: the machine has asked for too much; later.
	ErrBusy = errors.New("too many requests")
	// ErrUnavailable: the host lacks what it needs for this now.
	ErrUnavailable = errors.New("not available now")
	// ErrRefused: the authority does not want to.
	ErrRefused = errors.New("refused by the authority")
	// ErrRevoked: the authority does not take this host's certificate any more.
	ErrRevoked = errors.New("the authority has revoked this host")
)
