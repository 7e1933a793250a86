// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
)

// faultsAsPanics makes an access to shared memory that is gone (SIGBUS on a
// truncated file) a panic of the calling goroutine that recoverFault can turn
// into an error. Every goroutine that touches shared memory calls it first.
// The result restores what was set before, for a goroutine that is borrowed.
func faultsAsPanics() (restore func()) {
	old := debug.SetPanicOnFault(true)
	return func() { debug.SetPanicOnFault(old) }
}

// recoverFault is deferred around code that touches shared memory. It turns a
// memory fault into ErrMemoryFault; every other panic goes on.
func recoverFault(err *error) {
	r := recover()
	if r == nil {
		return
	}
	if !isFault(r) {
		panic(r)
	}
	*err = fmt.Errorf("%w: %v", ErrMemoryFault, r)
}

// isFault tells a fault at an address from the runtime's other errors. A nil
// pointer dereference carries no address and stays a panic: it is a bug.
func isFault(r any) bool {
	e, ok := r.(runtime.Error)
	if !ok {
		return false
	}
	_, ok = errors.AsType[interface {
		error
		Addr() uintptr
	}](e)
	return ok
}

// catchFault runs f, which touches shared memory, on a goroutine that has
// called faultsAsPanics.
func catchFault(f func() error) (err error) {
	defer recoverFault(&err)
	return f()
}
