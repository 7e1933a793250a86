// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"bytes"
	"errors"
	"fmt"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/engine"
	"hwvtpm/firmware/sealed"
)

// moment is what a checkpoint says beside the TPM's volatile state.
type moment struct {
	seq   uint64 // last command answered
	resp  []byte // with this
	run   [abi.RunIDSize]byte
	bound binding // to the state file that it goes with
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

// prepare writes the checkpoint to the place that is not committed. It is sealed
// here and then copied: who can write the file must not see the sealing at work.
func (s *slot) prepare(m *moment) error {
	head := ckptHeaderSize + copy(s.plain[ckptHeaderSize:], m.resp)
	n, err := s.tpm.Volatile(s.plain[head:])
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	c := checkpoint{serial: s.serial + 1, seq: m.seq, bound: m.bound, run: m.run, flags: m.flags, response: m.resp}
	return s.sealCheckpoint(&c, n)
}

// sealCheckpoint puts a checkpoint to its place. Response and n bytes of volatile
// state are in s.plain already.
func (s *slot) sealCheckpoint(c *checkpoint, n int) error {
	c.boot = s.store.bootID()
	putCheckpoint(s.plain, c, n)
	plain := s.plain[:ckptHeaderSize+len(c.response)+n]
	defer clear(plain)
	blob, err := s.seals.Seal(s.blob[:0], sealed.KindVolatile, c.bound.generation, c.bound.epoch, plain)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	s.blob = blob
	s.vol.putBlob(c.serial, blob)
	return nil
}

// commitPrepared makes the checkpoint that prepare wrote the one that counts.
func (s *slot) commitPrepared(m *moment) {
	s.serial++
	s.journal, s.entries = 0, nil
	s.vol.commit(commitWord{serial: s.serial})
	s.record(m.seq, m.resp)
	s.flags = m.flags
	s.stats.Checkpoints++
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
	s.stored = s.tpm.Stored(s.stored[:0])
	flags := s.state.flags
	if exact {
		flags |= stateFlagExact
	}
	return s.saveStored(m, flags, resp)
}

// saveStored is saveDurable for the permanent state in s.stored, or for the present
// one if that is empty, with these flags of the state.
func (s *slot) saveStored(m *moment, flags uint32, resp []byte) (int, error) {
	next := s.state
	next.engine, next.flags = engine.Version(), flags
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
		if err := s.restore(s.seq); err != nil {
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
// slot.current:
//
//  1. the checkpoint, bound to the new state, not committed
//  2. the state file, by rename
//  3. the commit
//
// d gets the next generation, which is used up even if all this fails: nobody
// can say where the sealed state has got to.
func (s *slot) writeState(d *durable, m *moment) error { return s.replaceState(d, m, s.prepare) }

// writeEnded is writeState for a run that is over: its checkpoint has no volatile
// state, so that the run cannot be resumed.
func (s *slot) writeEnded(d *durable, m *moment) error {
	return s.replaceState(d, m, func(m *moment) error {
		c := checkpoint{serial: s.serial + 1, seq: m.seq, bound: m.bound, run: m.run, flags: m.flags}
		return s.sealCheckpoint(&c, 0)
	})
}

func (s *slot) replaceState(d *durable, m *moment, prepare func(*moment) error) error {
	s.used++
	d.generation = s.used
	s.image = appendState(s.image[:0], d)
	defer clear(s.image)
	blob, err := s.seals.Seal(s.store.image(), sealed.KindPermanent, d.generation, s.epoch, s.image)
	if err != nil {
		return err
	}
	if m.bound, err = bindingOf(blob); err != nil {
		return err
	}
	if err := prepare(m); err != nil {
		return err
	}
	if err := s.store.replace(blob); err != nil {
		if errors.Is(err, errUnsure) {
			return err
		}
		return fmt.Errorf("%w: %w", errNotWritten, err)
	}
	s.adopt(d, m.bound)
	s.undid = false
	s.commitPrepared(m)
	s.stats.Durable++
	return nil
}

// adopt makes d, which is on disk now, the slot's state.
func (s *slot) adopt(d *durable, b binding) {
	old := s.state.permanent
	s.state, s.bound = *d, b
	if &old[0] != &d.permanent[0] {
		s.state.permanent = bytes.Clone(d.permanent)
		clear(old)
	}
}
