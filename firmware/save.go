// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"bytes"
	"errors"
	"fmt"

	"hwvtpm/firmware/engine"
)

// checkpoint writes the TPM's volatile state as the moment after seq was
// answered with resp, bound to the state file with this sum, and commits it.
func (s *slot) checkpoint(seq uint64, resp []byte, bound stateSum, pristine bool) error {
	if err := s.prepare(seq, resp, bound, pristine); err != nil {
		return err
	}
	s.commitPrepared(seq, resp, pristine)
	return nil
}

// prepare writes the checkpoint to the place that is not committed.
func (s *slot) prepare(seq uint64, resp []byte, bound stateSum, pristine bool) error {
	place := s.vol.slot(s.serial + 1)
	n, err := s.tpm.Volatile(place[ckptVolatile:])
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	c := checkpoint{serial: s.serial + 1, seq: seq, bound: bound, run: s.state.run, response: resp}
	if pristine {
		c.flags |= ckptFlagPristine
	}
	putCheckpoint(place, &c, n)
	return nil
}

// commitPrepared makes the checkpoint that prepare wrote the one that counts.
func (s *slot) commitPrepared(seq uint64, resp []byte, pristine bool) {
	s.serial++
	s.journal = 0
	s.vol.commit(commitWord{serial: s.serial})
	s.record(seq, resp)
	s.pristine = pristine
	s.stats.checkpoints++
}

// record remembers the response to the last command on record.
func (s *slot) record(seq uint64, resp []byte) {
	clear(s.response[:cap(s.response)])
	s.seq, s.response = seq, append(s.response[:0], resp...)
}

// saveDurable makes a command's new permanent state durable and checkpoints
// the volatile state that goes with it. The order lets a kill at any point
// be undone or completed: see volatileFile.current.
//
//  1. checkpoint, bound to the new state, not committed
//  2. state file, by rename
//  3. commit
//
// If the state cannot be written the TPM goes back to where it was before
// the command, and the response is TPM_RC_NV_UNAVAILABLE.
func (s *slot) saveDurable(seq uint64, resp []byte, n int, audit bool) (int, error) {
	next := s.state
	next.generation++
	next.engine = engine.Version()
	if audit {
		next.flags |= stateFlagAudit
	}
	s.stored = s.tpm.Stored(s.stored[:0])
	defer clear(s.stored)
	if len(s.stored) > 0 {
		next.permanent = s.stored
	}
	sum, err := s.writeState(&next, func(sum stateSum) error {
		return s.prepare(seq, resp[:n], sum, false)
	})
	if errors.Is(err, errNotWritten) {
		s.log.fail("state cannot be written; the command is undone", "err", err)
		if err := s.restore(); err != nil {
			return 0, fmt.Errorf("undo: %w", err)
		}
		return putResponse(resp, rcNVUnavailable), nil
	}
	if err != nil {
		return 0, err
	}
	s.adopt(&next, sum)
	s.commitPrepared(seq, resp[:n], false)
	return n, nil
}

// errNotWritten marks a failure that left the state file as it was.
var errNotWritten = errors.New("state file not written")

// writeState writes d to disk. before runs when the sum of the new file is
// known and the file is not yet there.
func (s *slot) writeState(d *durable, before func(stateSum) error) (stateSum, error) {
	image, sum := appendState(s.image[:0], d)
	s.image = image
	defer clear(image)
	if err := before(sum); err != nil {
		return sum, err
	}
	if err := s.dir.replace(s.dir, image); err != nil {
		if errors.Is(err, errUnsure) {
			return sum, err
		}
		return sum, fmt.Errorf("%w: %w", errNotWritten, err)
	}
	s.stats.durable++
	return sum, nil
}

// adopt makes d, which is on disk now, the slot's state.
func (s *slot) adopt(d *durable, sum stateSum) {
	old := s.state.permanent
	s.state, s.sum = *d, sum
	if len(old) == 0 || &old[0] != &d.permanent[0] {
		s.state.permanent = bytes.Clone(d.permanent)
		clear(old)
	}
}
