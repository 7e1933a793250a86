// SPDX-License-Identifier: Apache-2.0

package emulator

import (
	"bytes"
	"context"
	"errors"
	"time"

	"hwvtpm/coproc"
	"hwvtpm/vtpm"
)

// ownTimeout bounds the session's own commands, which take microseconds.
const ownTimeout = 10 * time.Second

// execute answers a message of the data channel in resp and returns the
// answer's length. It never fails: what is no command, or finds no TPM, gets a
// TPM's answer.
func (s *session) execute(cmd, resp []byte) int {
	c := &s.server.counters
	c.commands.Add(1)
	limit := int(s.bufferSize.Load())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hash.drop() // whatever the command is: so does a TPM
	switch {
	case !s.running.Load() || s.ending.Load():
		return s.refuse(resp, rcFailure)
	case !whole(cmd) || len(cmd) > limit:
		c.badSizes.Add(1)
		return s.refuse(resp, rcCommandSize)
	}
	n := s.executeLocked(coproc.Command{
		Locality: uint8(s.locality.Load()),
		Timeout:  vtpm.CommandTimeout(codeOf(cmd)),
		Bytes:    cmd,
	}, resp)
	if n > limit { // QEMU's device has no room for it
		s.slotFailed(errors.New("emulator: the response is longer than the buffer size"))
		return s.refuse(resp, rcFailure)
	}
	if codeOf(resp) != 0 {
		c.errors.Add(1)
	}
	return n
}

// executeLocked runs a command and notes what it means for an orderly end.
//
// Preconditions: s.mu is held, the TPM runs, cmd is whole.
func (s *session) executeLocked(cmd coproc.Command, resp []byte) int {
	n, err := s.slot.Execute(context.Background(), cmd, resp)
	switch {
	case errors.Is(err, coproc.ErrTimeout), errors.Is(err, coproc.ErrCanceled):
		s.slotFailed(err)
		n = putError(resp, rcCanceled)
	case err != nil:
		s.slotFailed(err)
		n = putError(resp, rcFailure)
	case n < 0 || n > len(resp) || !whole(resp[:n]):
		s.slotFailed(errors.New("emulator: the slot's response is not a TPM response"))
		n = putError(resp, rcFailure)
	default:
		s.quiet.Store(false)
	}
	s.moved = false
	s.dirty = codeOf(cmd.Bytes) != ccShutdown || codeOf(resp) != 0
	if !s.dirty && bytes.Equal(cmd.Bytes, shutdownState) {
		s.suspends = true
	}
	return n
}

func (s *session) refuse(resp []byte, rc uint32) int {
	s.server.counters.errors.Add(1)
	return putError(resp, rc)
}

// slotFailed logs the first failure of a row of failures.
func (s *session) slotFailed(err error) {
	s.server.counters.slotErrors.Add(1)
	if s.quiet.CompareAndSwap(false, true) {
		s.log.Error("the TPM did not serve a command", "error", err)
	}
}
