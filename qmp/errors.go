// SPDX-License-Identifier: Apache-2.0

package qmp

import (
	"errors"
	"fmt"
)

var (
	// ErrClosed says that this side called Close.
	ErrClosed = errors.New("connection closed")

	// ErrDisconnected says that the peer closed the connection or died.
	ErrDisconnected = errors.New("peer disconnected")

	// ErrProtocol says that the peer sent something that is not QMP. The
	// connection is closed at that point, since its framing cannot be trusted.
	ErrProtocol = errors.New("protocol violation")

	// ErrOverflow says that a subscription lost its oldest events because
	// nobody took them in time.
	ErrOverflow = errors.New("event queue overflow")
)

// Error classes of QMP. All but ClassGenericError exist because some client
// has to branch on them (QMP spec "error").
const (
	ClassGenericError    = "GenericError"
	ClassCommandNotFound = "CommandNotFound"
	ClassDeviceNotFound  = "DeviceNotFound"
	ClassDeviceNotActive = "DeviceNotActive"
	ClassKVMMissingCap   = "KVMMissingCap"
)

// Error is the peer's refusal of one command. The connection remains usable.
type Error struct {
	Command string `json:"-"`     // name of the refused command
	Class   string `json:"class"` // one of the Class constants, or a newer one
	Desc    string `json:"desc"`  // for people; its wording is no interface
}

// Error returns command, class and description in one line.
func (e *Error) Error() string {
	return fmt.Sprintf("qmp: %s: %s: %s", e.Command, e.Class, e.Desc)
}

// isClass says whether err is a refusal of the given class.
func isClass(err error, class string) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Class == class
}
