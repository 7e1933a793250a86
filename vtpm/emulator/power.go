// SPDX-License-Identifier: Apache-2.0

package emulator

import (
	"context"
	"errors"
	"fmt"

	"hwvtpm/coproc"
)

// errNotResumed: a volatile state was set, but the slot came up without it.
var errNotResumed = errors.New("the slot did not continue from the state that was set")

// powerOff is STOP, and what SHUTDOWN and hanging up have in common with it.
func (s *session) powerOff() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.powerOffLocked()
}

// powerOffLocked shuts the TPM down in order, if the guest did not: a machine
// that is reset often without it would lock itself out of keys with dictionary
// attack protection, since each time counts as a possible attack (TCG Part 1,
// "Dictionary Attack Protection"). A TPM whose state has moved to another host
// is left alone.
//
// Firmware that suspends the machine sends TPM2_Shutdown(STATE), and then more
// commands, which undo it. So in a run that had one the end is of this kind,
// and the firmware can go on where it was when it wakes up. Without it the end is
// TPM2_Shutdown(CLEAR): nobody gets at the PCRs of before.
func (s *session) powerOffLocked() {
	if s.running.Load() && s.dirty && !s.moved {
		cmd := shutdownClear
		if s.suspends {
			cmd = shutdownState
		}
		// A TPM that was not started refuses, and needs none.
		s.executeLocked(coproc.Command{Bytes: cmd, Timeout: ownTimeout}, s.scratch)
	}
	s.running.Store(false)
	s.hash.drop()
	s.dirty = false
}

// powerOn is INIT. A TPM that can't be had fails the machine's start. Later, in
// a machine's reset, a failure leaves the TPM off, in failure mode as the guest
// sees it: QEMU would end a machine whose INIT fails, and _TPM_Init itself has
// no outcome.
func (s *session) powerOn() result {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.powerOffLocked()
	again := s.server.powered && s.server.run == s.run && !s.set
	var err error
	if again {
		err = s.resetLocked()
	} else {
		err = s.startLocked()
	}
	s.running.Store(err == nil)
	s.moved, s.set, s.volatile, s.suspends = false, false, false, false
	s.quiet.Store(false)
	switch {
	case err == nil:
		return resOK
	case again:
		s.log.Error("resetting the TPM failed; it answers TPM_RC_FAILURE until the next reset", "error", err)
		return resOK
	}
	s.log.Error("the TPM can't be powered on", "error", err)
	return resFail
}

// startLocked begins the machine's run. Should the slot still know this run, as
// when QEMU connects a second time, its volatile state ends here, and so does a
// failure to restore it; unless the state is the one that the peer has just set.
func (s *session) startLocked() error {
	res, err := s.slot.PowerOn(context.Background(), s.run)
	failed := errors.Is(err, coproc.ErrFailed)
	if err != nil && (!failed || s.volatile) {
		return err
	}
	s.server.powered, s.server.run = true, s.run
	s.server.counters.powerOns.Add(1)
	switch {
	case s.volatile && !res.Resumed:
		return errNotResumed
	case s.volatile:
		s.log.Info("the TPM continues where it was saved")
		return nil
	case res.Resumed, failed:
		return s.resetLocked()
	}
	s.log.Info("the TPM is powered on")
	return nil
}

func (s *session) resetLocked() error {
	if err := s.slot.Reset(context.Background()); err != nil {
		return fmt.Errorf("reset: %w", err)
	}
	s.server.counters.resets.Add(1)
	s.log.Info("the TPM is reset")
	return nil
}
