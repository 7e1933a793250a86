// SPDX-License-Identifier: Apache-2.0

package card

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/card/store"
	"hwvtpm/firmware/sealed"
)

// refusal is an error with the status that a client sees.
type refusal struct {
	status abi.Status
	err    error
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// refuse makes an error of a status. The text is for the client.
func refuse(status abi.Status, format string, args ...any) error {
	return &refusal{status, fmt.Errorf(format, args...)}
}

// causes give the status of errors from below.
var causes = []struct {
	err    error
	status abi.Status
}{
	{abi.ErrMalformed, abi.StatusBadField},
	{sealed.ErrWrongKey, abi.StatusWrongKey},
	{sealed.ErrForeign, abi.StatusForeign},
	{sealed.ErrRollback, abi.StatusRollback},
	{sealed.ErrCounter, abi.StatusRollback},
	{sealed.ErrDamaged, abi.StatusCorrupt},
	{sealed.ErrVersion, abi.StatusBadVersion},
	{sealed.ErrUnsure, abi.StatusStorage},
	{store.ErrFailed, abi.StatusStorage},
	{store.ErrFull, abi.StatusFull},
	{store.ErrHeld, abi.StatusInUse},
	{store.ErrCurrent, abi.StatusOrder},
	{unix.ENOSPC, abi.StatusFull},
	{unix.EDQUOT, abi.StatusFull},
	{unix.EROFS, abi.StatusStorage},
	{unix.EIO, abi.StatusStorage},
	{fs.ErrExist, abi.StatusExists},
	{fs.ErrNotExist, abi.StatusCorrupt}, // a file of the slot
}

// statusOf gives the status of an error.
func statusOf(err error) abi.Status {
	if err == nil {
		return abi.StatusOK
	}
	if r, ok := errors.AsType[*refusal](err); ok {
		return r.status
	}
	for _, c := range causes {
		if errors.Is(err, c.err) {
			return c.status
		}
	}
	return abi.StatusInternal
}

// faulty tells whether a slot that is refused with a status stays so until an
// operator does something about it.
func faulty(s abi.Status) bool {
	switch s {
	case abi.StatusCorrupt, abi.StatusForeign, abi.StatusRollback, abi.StatusWrongKey, abi.StatusBadVersion:
		return true
	}
	return false
}

// textOf is an error as the text of a completion.
func textOf(err error) string {
	text := err.Error()
	return strings.ToValidUTF8(text[:min(len(text), abi.MaxText)], "")
}
