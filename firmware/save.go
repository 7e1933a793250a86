// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"bytes"
	"errors"
	"fmt"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/engine"
)

// moment is what a checkpoint says beside the TPM's volatile state.
type moment struct {
	seq   uint64 // last command answered
	resp  []byte // with this
	run   [abi.RunIDSize]byte
	bound stateSum // of the state file that it goes with
	flags uint32
}

// checkpoint writes the TPM's volatile state and commits it.
func (s *slot) checkpoint(m *moment) error {
	if err := s.prepare(m); err != nil {
		return err
	}
	s.commitPrepared(m)
	return nil
}

// prepare writes the checkpoint to the place that is not committed.
func (s *slot) prepare(m *moment) error {
	place := s.vol.slot(s.serial + 1)
	n, err := s.tpm.Volatile(place[ckptVolatile:])
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	c := checkpoint{serial: s.serial + 1, seq: m.seq, bound: m.bound, run: m.run, flags: m.flags, response: m.resp}
	putCheckpoint(place, &c, n)
	return nil
}

// commitPrepared makes the checkpoint that prepare wrote the one that counts.
func (s *slot) commitPrepared(m *moment) {
	s.serial++
	s.journal = 0
	s.vol.commit(commitWord{serial: s.serial})
	s.record(m.seq, m.resp)
	s.flags = m.flags
	s.stats.checkpoints++
}

// record remembers the response to the last command on record.
func (s *slot) record(seq uint64, resp []byte) {
	clear(s.response)
	s.seq, s.response = seq, append(s.response[:0], resp...)
}

// saveDurable makes a command's new permanent state durable and checkpoints
// the volatile state that goes with it. If the state cannot be written the TPM
// goes back to where it was before the command, and the response is
// TPM_RC_NV_UNAVAILABLE.
func (s *slot) saveDurable(m *moment, exact bool, resp []byte) (int, error) {
	next := s.state
	next.generation++
	next.engine = engine.Version()
	if exact {
		next.flags |= stateFlagExact
	}
	s.stored = s.tpm.Stored(s.stored[:0])
	defer clear(s.stored)
	if len(s.stored) > 0 {
		next.permanent = s.stored
	}
	err := s.writeState(&next, m)
	if errors.Is(err, errNotWritten) {
		if !s.undid { // the guest can try again as often as it likes
			s.log.fail("state cannot be written; commands that need it are undone", "err", err)
		}
		s.undid = true
		if err := s.restore(); err != nil {
			return 0, fmt.Errorf("undo: %w", err)
		}
		return putResponse(resp, rcNVUnavailable), nil
	}
	if err != nil {
		return 0, err
	}
	return len(m.resp), nil
}

// errNotWritten marks a failure that left the state file as it was.
var errNotWritten = errors.New("state file not written")

// writeState makes d the slot's state, durably, with m as the checkpoint that
// goes with it. The order lets a kill at any point be undone or completed, see
// volatileFile.current:
//
//  1. the checkpoint, bound to the new state, not committed
//  2. the state file, by rename
//  3. the commit
func (s *slot) writeState(d *durable, m *moment) error {
	image, sum := appendState(s.image[:0], d)
	s.image = image
	defer clear(image)
	m.bound = sum
	if err := s.prepare(m); err != nil {
		return err
	}
	if err := s.dir.replace(s.dir, image); err != nil {
		if errors.Is(err, errUnsure) {
			s.unsure = true
			return err
		}
		return fmt.Errorf("%w: %w", errNotWritten, err)
	}
	s.adopt(d, sum)
	s.unsure, s.undid = false, false
	s.commitPrepared(m)
	s.stats.durable++
	return nil
}

// adopt makes d, which is on disk now, the slot's state.
func (s *slot) adopt(d *durable, sum stateSum) {
	old := s.state.permanent
	s.state, s.sum = *d, sum
	if &old[0] != &d.permanent[0] {
		s.state.permanent = bytes.Clone(d.permanent)
		clear(old)
	}
}
