// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/pcrmap"
)

// changesHostPCR tells whether a command could change PCR 0-7 after
// TPM2_Startup, and so is not for the guest while they are the host's. These are all
// commands that name a PCR to be changed, by a handle, and always the first one:
// TPM2_PCR_Extend, _Event, _Reset, _SetAuthValue and TPM2_EventSequenceComplete
// (Part 3, 22 and 17.6). Handles are never encrypted, and the first stands at the
// same place with and without sessions.
func changesHostPCR(cmd []byte) bool {
	if len(cmd) < tpmHeaderSize+4 {
		return false
	}
	switch commandCode(cmd) {
	case 0x182, 0x13c, 0x13d, 0x183, 0x185:
		return binary.BigEndian.Uint32(cmd[tpmHeaderSize:]) < abi.HostPCRs
	}
	return false
}

// mapPCRs puts a map of PCRs in force for the run. The PCRs take its values with
// the guest's TPM2_Startup, in the same step, so that nobody sees others: whether
// that is done is part of what a crash undoes or keeps. A TPM that came started
// from outside (see slot.loadState) takes them now.
func (s *slot) mapPCRs(m *abi.PCRMap) error {
	switch {
	case s.phase == abi.SlotOff:
		return fmt.Errorf("PCRs before power-on: %w", errOrder)
	case s.phase == abi.SlotFailed:
		return errFailed
	case s.state.pcrs == *m:
		return nil
	case s.flags&(flagPristine|flagLoaded) == 0:
		return fmt.Errorf("the guest runs, with other PCRs: %w", errOrder)
	case m.Banks() == 0 && s.flags&flagPristine == 0:
		return fmt.Errorf("the guest runs, and its PCRs are a host's: %w", errOrder)
	}
	if err := s.tryMapping(); err != nil {
		return err
	}
	if s.flags&flagPristine == 0 {
		if err := s.applyMap(m, s.state.permanent); err != nil && !errors.Is(err, pcrmap.ErrNotStarted) {
			return s.undoMapping(err)
		}
	}
	next := s.state
	next.pcrs = *m
	at := moment{seq: s.seq, resp: bytes.Clone(s.response), run: s.state.run, flags: s.flags}
	if err := s.writeState(&next, &at); err != nil {
		return s.undoMapping(err)
	}
	if m.Banks() != 0 {
		s.log.info("PCR 0-7 are the host's", "banks", m.Banks())
	}
	return nil
}

// undoMapping brings back what was before a map that failed.
func (s *slot) undoMapping(err error) error {
	if !errors.Is(err, errUnsure) {
		back := s.restore(s.seq)
		if back == nil {
			return err
		}
		err = fmt.Errorf("%w, and undo: %w", err, back)
	}
	s.fail("PCRs of the host could not be mapped", err)
	return errFailed
}

// tryMapping tests on a TPM that is thrown away, once in a worker's life, whether
// the libtpms at hand is one that is understood.
func (s *slot) tryMapping() error {
	if s.mapTested {
		return nil
	}
	n, err := s.tpm.Volatile(s.plain)
	if err != nil {
		return s.undoMapping(err)
	}
	vol := s.plain[:n]
	defer clear(vol)
	test := pcrmap.SelfTest(s.tpm)
	if err := s.load(s.state.permanent, vol); err != nil {
		return s.undoMapping(err)
	}
	s.mapTested = test == nil
	return test
}

// startMapped gives the PCRs their values after a TPM2_Startup that left s.stored.
func (s *slot) startMapped() error {
	perm := s.stored
	if len(perm) == 0 {
		perm = s.state.permanent
	}
	err := s.applyMap(&s.state.pcrs, perm)
	if err != nil {
		clear(s.stored)
	}
	return err
}

// applyMap gives the TPM the PCRs of a map, and drops what libtpms stores at its
// start, as slot.load does.
func (s *slot) applyMap(m *abi.PCRMap, perm []byte) error {
	err := pcrmap.Apply(s.tpm, perm, m)
	clear(s.tpm.Stored(nil))
	return err
}

// mapPCRs answers OpMapPCRs.
func (s *server) mapPCRs(payload []byte) error {
	m, err := abi.ParsePCRMap(payload)
	if err != nil {
		return err
	}
	return s.slot.mapPCRs(&m)
}
