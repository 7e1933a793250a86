// SPDX-License-Identifier: Apache-2.0

package door

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// ErrClosed is returned by calls of a client that is closed, or whose channel ended.
var ErrClosed = errors.New("door: closed")

// Codes of errors, in Error.Code.
const (
	CodeBadRequest  = "bad-request" // nobody could be answered this
	CodeDenied      = "denied"      // not this caller, or not now
	CodeNotFound    = "not-found"   // there is no such machine, key or operation
	CodeBusy        = "busy"        // the same may succeed later
	CodeUnavailable = "unavailable" // what it takes, a TPM or a server, does not answer
	CodeInternal    = "internal"    // the host failed; its log says why
)

var codes = map[string]bool{
	CodeBadRequest: true, CodeDenied: true, CodeNotFound: true,
	CodeBusy: true, CodeUnavailable: true, CodeInternal: true,
}

// Error is an operation that the other side refused, or that failed there. A Handler
// returns one to have its code and message sent.
type Error struct {
	Op      string // the operation
	Code    string // one of the codes
	Message string // for people, one line

	cause error // on the side where it happened
}

// Error implements error.
func (e *Error) Error() string {
	if e.Op == "" {
		return fmt.Sprintf("door: %s: %s", e.Code, e.Message)
	}
	return fmt.Sprintf("door: %s: %s: %s", e.Op, e.Code, e.Message)
}

// Unwrap gives the cause, on the side where the error was made.
func (e *Error) Unwrap() error { return e.cause }

// Errorf makes an Error, whose message is sent to the caller. A cause (%w) is kept.
func Errorf(code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), cause: errors.Unwrap(err)}
}

// Code is the code with which err is answered: that of an Error in its tree, else
// CodeUnavailable for a context that ended, else CodeInternal.
func Code(err error) string {
	if e, ok := errors.AsType[*Error](err); ok && codes[e.Code] {
		return e.Code
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return CodeUnavailable
	}
	return CodeInternal
}

// Message is what a caller is told of err: the message of an Error in its tree, else
// nothing of the host's inside.
func Message(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return plain(e.Message)
	}
	if Code(err) == CodeUnavailable {
		return "the host gave up waiting"
	}
	return "the host failed; its log says why"
}

const maxMessage = 1 << 10 // bytes of an Error's message that are passed on

// plain makes a text fit for a terminal and a log: one line of bounded length.
func plain(s string) string {
	s = strings.ToValidUTF8(s[:min(len(s), maxMessage)], "")
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
}
