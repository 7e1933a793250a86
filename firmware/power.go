// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"

	"hwvtpm/coproc/abi"
)

func isForeign(err error) bool { return errors.Is(err, errForeign) }

// powerOn starts the TPM for a run.
func (s *slot) powerOn(run [abi.RunIDSize]byte) (abi.PowerOnReply, error) {
	if run != s.state.run {
		if err := s.cycle(run); err != nil {
			s.fail("power cycle", err)
			return abi.PowerOnReply{}, errFailed
		}
		return abi.PowerOnReply{LastSeq: s.seq}, nil
	}
	if s.phase == abi.SlotOff {
		if err := s.resume(); err != nil {
			s.fail("state of this run cannot be restored", err)
		}
	}
	if s.phase == abi.SlotFailed {
		return abi.PowerOnReply{}, errFailed
	}
	return abi.PowerOnReply{Resumed: true, LastSeq: s.seq}, nil
}

// reset is _TPM_Init inside the run.
func (s *slot) reset() error {
	if s.phase == abi.SlotOff {
		return fmt.Errorf("reset before power-on: %w", errOrder)
	}
	if s.phase == abi.SlotRunning && s.pristine {
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
	if err := s.tpm.Load(s.state.permanent, nil); err != nil {
		return err
	}
	if s.vol == nil || s.phase != abi.SlotRunning {
		if err := s.freshVolatile(); err != nil {
			return err
		}
	}
	next := s.state
	s.stored = s.tpm.Stored(s.stored[:0])
	defer clear(s.stored)
	changed := run != s.state.run
	if len(s.stored) > 0 && !bytes.Equal(s.stored, s.state.permanent) {
		next.permanent, changed = s.stored, true
	}
	if !changed {
		err := s.checkpoint(s.seq, nil, s.sum, true)
		s.phase = phaseAfter(err)
		return err
	}
	next.run = run
	next.generation++
	s.state.run = run // prepare writes it
	sum, err := s.writeState(&next, func(sum stateSum) error {
		return s.prepare(s.seq, nil, sum, true)
	})
	if err != nil {
		return err
	}
	s.adopt(&next, sum)
	s.commitPrepared(s.seq, nil, true)
	s.phase = abi.SlotRunning
	return nil
}

func phaseAfter(err error) abi.SlotState {
	if err != nil {
		return abi.SlotFailed
	}
	return abi.SlotRunning
}

// freshVolatile replaces the volatile file by an empty one.
func (s *slot) freshVolatile() error {
	if s.vol != nil {
		s.vol.close()
		s.vol = nil
	}
	v, err := createVolatile(s.dir, s.state.slotID)
	if err != nil {
		return err
	}
	s.vol, s.serial, s.journal = v, 0, 0
	return nil
}

// resume restores the TPM of this run from the files, exactly.
func (s *slot) resume() error {
	v, err := openVolatile(s.dir, s.state.slotID)
	if err != nil {
		return err
	}
	s.vol = v
	if err := s.restore(); err != nil {
		return err
	}
	s.phase = abi.SlotRunning
	return nil
}

// restore brings the TPM to the last recorded moment.
func (s *slot) restore() error {
	c, journal, err := s.vol.current(s.sum)
	if err != nil {
		return err
	}
	if c.run != s.state.run {
		return fmt.Errorf("checkpoint is of another run: %w", errCorrupt)
	}
	if err := s.tpm.Load(s.state.permanent, c.volatile); err != nil {
		return err
	}
	s.stored = s.tpm.Stored(s.stored[:0])
	defer clear(s.stored)
	if len(s.stored) > 0 && !bytes.Equal(s.stored, s.state.permanent) {
		return errors.New("permanent state changed while it was loaded")
	}
	s.serial, s.journal = c.serial, journal
	s.pristine = c.flags&ckptFlagPristine != 0
	s.record(c.seq, c.response)
	return s.stir()
}

// stir feeds fresh entropy to the TPM's generator, which would otherwise
// produce again what it produced after the checkpoint. A TPM that was not
// started yet seeds itself at TPM2_Startup. With a command audit list every
// command is checkpointed, so there is nothing to repeat, and the stir would
// show in the audit digest.
func (s *slot) stir() error {
	if s.state.flags&stateFlagAudit != 0 {
		return nil
	}
	const size = 32
	// TPM2_StirRandom (Part 3, 16.2): header, TPM2B_SENSITIVE_DATA.
	cmd := [tpmHeaderSize + 2 + size]byte{0x80, 0x01, 0, 0, 0, tpmHeaderSize + 2 + size, 0, 0, 0x01, 0x46, 0, size}
	rand.Read(cmd[tpmHeaderSize+2:])
	n, stored, err := s.tpm.Process(0, cmd[:], s.scratch)
	clear(cmd[:])
	if err != nil {
		return fmt.Errorf("stir: %w", err)
	}
	if rc := responseCode(s.scratch[:n]); stored || rc != rcSuccess && rc != rcInitialize {
		return fmt.Errorf("stir: response code %#x, stored %t", rc, stored)
	}
	return nil
}
