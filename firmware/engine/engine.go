// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"errors"
	"fmt"
	"sync/atomic"
)

// MaxResponse is the room that Process needs for a response, in bytes.
const MaxResponse = 4096

// Errors of this package.
var (
	// ErrBusy: the process holds an engine already.
	ErrBusy = errors.New("libtpms is in use already in this process")
	// ErrStopped: no TPM is running in the engine.
	ErrStopped = errors.New("no TPM is running")
	// ErrTooSmall: the buffer given has not enough room.
	ErrTooSmall = errors.New("buffer too small")
)

// Error is a failure that libtpms reported. It is not a TPM response code of
// a command; those are inside responses.
type Error struct {
	Op   string
	Code uint32 // TPM_RESULT
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("libtpms: %s: error 0x%x", e.Op, e.Code) }

// Version is the version of libtpms, 0x00MMmmpp.
func Version() uint32 { return cVersion() }

var taken atomic.Bool

// Engine is libtpms. One goroutine owns it.
type Engine struct {
	running bool
}

// New claims the process's libtpms. It is never given back.
func New() (*Engine, error) {
	if taken.Swap(true) {
		return nil, ErrBusy
	}
	if rc := cSetup(); rc != 0 {
		return nil, &Error{Op: "set up", Code: rc}
	}
	return &Engine{}, nil
}

// Manufacture makes a new TPM and starts it; its permanent state is in
// Stored. The guest must send TPM2_Startup.
func (e *Engine) Manufacture() error {
	e.Stop()
	if rc := cManufacture(); rc != 0 {
		cStop()
		return &Error{Op: "manufacture", Code: rc}
	}
	e.running = true
	return nil
}

// Load starts the TPM from saved state. With volatile state it goes on as it
// was, without a TPM2_Startup; if vol is empty the TPM is as after _TPM_Init.
// After an error no TPM runs.
func (e *Engine) Load(perm, vol []byte) error {
	e.Stop()
	if len(perm) == 0 {
		return &Error{Op: "load empty state", Code: 0}
	}
	if rc := cLoad(perm, vol); rc != 0 {
		cStop()
		return &Error{Op: "load", Code: rc}
	}
	e.running = true
	return nil
}

// Stop ends the TPM without saving anything. It does nothing if none runs.
func (e *Engine) Stop() {
	if e.running {
		cStop()
	}
	e.running = false
}

// Process runs one command, which it may overwrite, and writes the response
// to resp, which must have room for MaxResponse bytes. stored tells whether
// the permanent state changed.
func (e *Engine) Process(locality uint8, cmd, resp []byte) (n int, stored bool, err error) {
	if !e.running {
		return 0, false, ErrStopped
	}
	if len(resp) < MaxResponse {
		return 0, false, ErrTooSmall
	}
	rc, n, stored := cProcess(locality, cmd, resp)
	if rc != 0 {
		return 0, stored, &Error{Op: "process", Code: rc}
	}
	if n > len(resp) {
		return 0, stored, ErrTooSmall
	}
	return n, stored, nil
}

// Hash gives the TPM a whole hash sequence, from _TPM_Hash_Start to _TPM_Hash_End, from
// locality 4. What it changes in the permanent state, if anything, is in Stored. After
// an error the sequence may have been done or not.
func (e *Engine) Hash(data []byte) error {
	if !e.running {
		return ErrStopped
	}
	if rc := cHash(data); rc != 0 {
		return &Error{Op: "hash sequence", Code: rc}
	}
	return nil
}

// Stored appends to dst the permanent state that was stored last and forgets
// it. It returns dst as it is if nothing was stored since the last call.
func (e *Engine) Stored(dst []byte) []byte {
	n := cStoredLen()
	if n == 0 {
		return dst
	}
	start := len(dst)
	dst = append(dst, make([]byte, n)...)
	cTakeStored(dst[start:])
	return dst
}

// Volatile writes the volatile state to dst and returns its size. If dst has
// not the room, the error is ErrTooSmall.
func (e *Engine) Volatile(dst []byte) (int, error) {
	if !e.running {
		return 0, ErrStopped
	}
	rc, n := cVolatile(dst)
	if rc != 0 {
		return 0, &Error{Op: "get volatile state", Code: rc}
	}
	if n > len(dst) {
		return n, ErrTooSmall
	}
	return n, nil
}

// Cancel asks the running command to end with TPM_RC_CANCELED. It may be
// called from any goroutine at any time.
func (e *Engine) Cancel() { cCancel() }
