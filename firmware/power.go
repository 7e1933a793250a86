// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/sealed"
)

// powerOn starts the TPM for a run. errFailed is for the run that the TPM is in
// already, and that a reset can bring back; a run that cannot begin has another
// error.
func (s *slot) powerOn(run [abi.RunIDSize]byte) (abi.PowerOnReply, error) {
	if run != s.state.run || s.over {
		if err := s.cycle(run); err != nil {
			s.fail("power cycle", err)
			return abi.PowerOnReply{}, fmt.Errorf("power cycle: %w", err)
		}
		return abi.PowerOnReply{Pristine: true, LastSeq: s.seq}, nil
	}
	if s.phase == abi.SlotOff {
		if err := s.resume(); err != nil {
			s.fail("state of this run cannot be restored", err)
		}
	}
	if s.phase == abi.SlotFailed {
		return abi.PowerOnReply{}, errFailed
	}
	return abi.PowerOnReply{Resumed: true, Pristine: s.flags&flagPristine != 0, LastSeq: s.seq}, nil
}

// reset is _TPM_Init inside the run.
func (s *slot) reset() error {
	if s.phase == abi.SlotOff {
		return fmt.Errorf("reset before power-on: %w", errOrder)
	}
	if s.phase == abi.SlotRunning && s.flags&flagPristine != 0 {
		return nil
	}
	if err := s.cycle(s.state.run); err != nil {
		s.fail("reset", err)
		return errFailed
	}
	return nil
}

// cycle power cycles the TPM and gives it to a run. The volatile file is made
// anew, whatever it holds, unless it serves already.
func (s *slot) cycle(run [abi.RunIDSize]byte) error {
	perm := s.endRun()
	defer clear(perm)
	if perm == nil {
		perm = bytes.Clone(s.state.permanent)
	}
	if err := s.load(perm, nil); err != nil {
		return err
	}
	if s.vol == nil || s.phase != abi.SlotRunning {
		if err := s.freshVolatile(); err != nil {
			return err
		}
	}
	next := s.state
	if run != s.state.run || s.over {
		next.pcrs, next.evidence = abi.PCRMap{}, nil // this machine's were the last boot's or run's
	}
	next.run, next.origin = run, sealed.Fingerprint{}
	next.permanent = perm
	if err := s.save(&next); err != nil {
		return err
	}
	s.phase, s.over = abi.SlotRunning, false
	return nil
}

// save records the TPM right after a power cycle. The state file is written even
// if nothing in it changes: what comes before the power cycle is bound to the
// state before, so that nobody who can write the volatile file brings it back. A
// sequence number, by which that is noticed otherwise, does not come with it.
func (s *slot) save(next *durable) error {
	return s.writeState(next, &moment{seq: s.seq, run: next.run, flags: flagPristine})
}

// endRun ends the TPM as TPM2_Shutdown does, if it can, and gives the
// permanent state after that, or nil. Without it a virtual machine that is
// switched off hard would count as an attack on passwords at its next start
// (Part 1, "Dictionary Attack Protection": a reset that is not orderly).
func (s *slot) endRun() []byte {
	if s.phase == abi.SlotOff {
		if err := s.resume(); err != nil {
			if s.state.generation > 1 && s.flags&flagShutdown == 0 {
				s.log.warn("the last run ends as if the power was cut", "err", err)
			}
			return nil
		}
	}
	if s.phase != abi.SlotRunning || s.flags&(flagPristine|flagShutdown) != 0 {
		return nil // there is no run to end, or the guest did
	}
	// TPM2_Shutdown(TPM_SU_CLEAR), Part 3, 9.4.
	cmd := [...]byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x45, 0, 0}
	if _, stored, err := s.tpm.Process(0, cmd[:], s.scratch); err != nil || !stored {
		return nil
	}
	return s.tpm.Stored(nil)
}

// freshVolatile replaces the volatile file by one with an empty checkpoint,
// which is bound to no state. So a kill before the next checkpoint is
// committed is told from damage: see slot.current.
func (s *slot) freshVolatile() error {
	if s.vol != nil {
		s.vol.close()
		s.vol = nil
	}
	v, err := newVolatile(s.store, s.state.slotID)
	if err != nil {
		return err
	}
	s.vol, s.serial, s.journal, s.entries = v, 0, 0, nil
	if err := s.sealCheckpoint(&checkpoint{}, 0); err != nil {
		return err
	}
	v.commit(commitWord{})
	return nil
}

// resume restores the TPM of this run from the files, exactly.
func (s *slot) resume() error {
	v, err := openVolatile(s.store, s.state.slotID)
	if err != nil {
		return err
	}
	s.vol = v // stays mapped if the restore fails, for a later cycle to replace
	if err := s.restore(s.minSeq); err != nil {
		return err
	}
	s.phase = abi.SlotRunning
	return nil
}

// restore brings the TPM to the last recorded moment, which must not be before
// the command floor: the file may have been set back.
func (s *slot) restore(floor uint64) error {
	err := s.recall()
	if err == nil && s.seq < floor {
		err = fmt.Errorf("volatile state ends at command %d, but %d was answered: it was set back: %w", s.seq, floor, errCorrupt)
	}
	if err != nil {
		s.record(max(s.seq, floor), nil)
		return err
	}
	if err := s.stir(); err != nil {
		return err
	}
	return s.keepStored()
}

// recall loads the checkpoint that counts and runs its journal.
func (s *slot) recall() error {
	c, journal, err := s.current(s.vol)
	if err != nil {
		return err
	}
	s.serial, s.journal, s.entries = c.serial, 0, nil
	s.flags = c.flags
	s.record(c.seq, c.response)
	if c.run == s.state.run && len(c.volatile) > 0 {
		err = s.load(s.state.permanent, c.volatile)
	} else {
		err = fmt.Errorf("checkpoint is of another run or empty: %w", errCorrupt)
	}
	clear(c.response)
	clear(c.volatile)
	if err != nil {
		return err
	}
	return s.replay(journal)
}

// keepStored makes durable what libtpms stored in the commands of a restore.
// These change no permanent state themselves, but the first command after its
// time, whichever that is, forgets a wrong password (Part 1, "Dictionary Attack
// Protection"), and the time may have come while no worker lived. If it cannot
// be written now, the next store takes it along.
func (s *slot) keepStored() error {
	s.stored = s.tpm.Stored(s.stored[:0])
	if len(s.stored) == 0 {
		return nil
	}
	defer clear(s.stored)
	next := s.state
	next.permanent = s.stored
	m := moment{seq: s.seq, resp: bytes.Clone(s.response), run: s.state.run, flags: s.flags}
	err := s.writeState(&next, &m)
	if errors.Is(err, errNotWritten) {
		if !s.undid {
			s.log.warn("state cannot be written after a restore", "err", err)
		}
		return nil
	}
	return err
}

// load starts the TPM from saved state, and drops what libtpms stores over it.
// It stores at every start, and after a TPM2_Shutdown(STATE) with one flag of
// the sleeping state turned; a start from the old copy and one from the new
// come to the same. So the state file has only what commands stored.
func (s *slot) load(perm, vol []byte) error {
	if err := s.tpm.Load(perm, vol); err != nil {
		return err
	}
	s.stored = s.tpm.Stored(s.stored[:0])
	clear(s.stored)
	return nil
}

// stir feeds fresh entropy to the TPM's generator, which would otherwise
// produce again what it produced after the checkpoint. A TPM that was not
// started yet seeds itself at TPM2_Startup. If every command is checkpointed
// there is nothing to repeat (see needsExact).
func (s *slot) stir() error {
	if s.state.flags&stateFlagExact != 0 {
		return nil
	}
	return s.stirAlways()
}

// stirAlways is stir for a state that may have been loaded before.
func (s *slot) stirAlways() error {
	const size = 32
	// TPM2_StirRandom (Part 3, 16.2): header, TPM2B_SENSITIVE_DATA.
	cmd := [tpmHeaderSize + 2 + size]byte{0x80, 0x01, 0, 0, 0, tpmHeaderSize + 2 + size, 0, 0, 0x01, 0x46, 0, size}
	rand.Read(cmd[tpmHeaderSize+2:])
	n, _, err := s.tpm.Process(0, cmd[:], s.scratch)
	clear(cmd[:])
	if err != nil {
		return fmt.Errorf("stir: %w", err)
	}
	if rc := responseCode(s.scratch[:n]); rc != rcSuccess && rc != rcInitialize {
		return fmt.Errorf("stir: response code %#x", rc)
	}
	return nil
}
