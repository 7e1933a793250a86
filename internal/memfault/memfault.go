// SPDX-License-Identifier: Apache-2.0

package memfault

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
)

// Err is the cause of all errors of this package.
var Err = errors.New("mapped memory is gone")

// Catch gives the result of f, which uses mapped memory.
func Catch(f func() error) (err error) {
	defer Arm()()
	defer Recover(&err)
	return f()
}

// Arm is for a goroutine that uses mapped memory again and again: a fault is a panic
// from then on, which [Recover] takes. The result restores what was before.
func Arm() (disarm func()) {
	old := debug.SetPanicOnFault(true)
	return func() { debug.SetPanicOnFault(old) }
}

// Recover is deferred around the use of mapped memory by a goroutine that is armed. It
// makes an error of a fault; every other panic goes on.
func Recover(err *error) {
	r := recover()
	if r == nil {
		return
	}
	// A nil pointer's dereference has no address: it is a bug and stays a panic.
	fault, ok := r.(interface {
		runtime.Error
		Addr() uintptr
	})
	if !ok {
		panic(r)
	}
	*err = fmt.Errorf("%w: %w", Err, fault)
}
