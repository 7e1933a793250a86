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

// trouble is ErrUnavailable with a cause inside of the host, which guests are not told.
type trouble struct {
	what  string // for everybody
	cause error
}

// Error implements error.
func (t *trouble) Error() string { return t.told() + ": " + t.cause.Error() }

// Unwrap gives both.
func (t *trouble) Unwrap() []error { return []error{ErrUnavailable, t.cause} }

// told is what guests are told.
func (t *trouble) told() string { return ErrUnavailable.Error() + ": " + t.what }

// What does not answer.
const (
	noCard      = "the card does not answer"
	noTPM       = "the host's TPM does not answer"
	noAuthority = "the authority does not answer"
	noTrust     = "the authority does not take this host's certificate"
)
