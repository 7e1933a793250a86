// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
)

// Exit codes of all programs, which are part of their interface. Codes from 3 on
// are a program's own; daemons have ExitLasting.
const (
	ExitOK      = 0
	ExitFailure = 1
	ExitUsage   = 2 // the command line is wrong
	ExitLasting = 3 // an error of Lasting: a service manager need not start the program again
)

// buildVersion is set by the Makefile.
var buildVersion string

// Version is the version of the running program, as a person should see it.
func Version() string {
	if buildVersion != "" {
		return buildVersion
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// usageError is a command line that is wrong.
type usageError struct{ error }

// Unwrap returns the cause.
func (e usageError) Unwrap() error { return e.error }

// Usagef makes the error of a command line that is wrong.
func Usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// IsUsage says whether an error is, or wraps, one of Usagef.
func IsUsage(err error) bool {
	_, ok := errors.AsType[usageError](err)
	return ok
}

// Notify tells a service manager of a change of state (sd_notify(3)), such as
// "READY=1". Without one it does nothing.
func Notify(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	// A leading @ means Linux's abstract namespace to systemd and to net.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return nil
}

// Tell is Notify for a program that goes on without its manager: a failure is logged.
func Tell(log interface{ Warn(string, ...any) }, state string) {
	if err := Notify(state); err != nil {
		log.Warn("service manager", "error", err)
	}
}
