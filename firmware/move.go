// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"errors"
	"fmt"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/engine"
	"hwvtpm/firmware/sealed"
)

// A state that leaves the card has two parts, both sealed with the position of
// the slot's permanent state. The permanent part is
//
//	 0
//	+--------------------------------------------------+
//	| fingerprint of the slot's permanent state (32)   | 0
//	|                                                  | 16
//	+--------------------------------------------------+
//	| what is sealed in that: see durable ...          | 32
//	+--------------------------------------------------+
//
// and the volatile part has the form of a checkpoint, without a response. It has
// the fingerprint as well, so that two parts are known to be of one moment. Its
// own fingerprint names the whole.
const movedHeaderSize = 32

// moved is a state that was outside of the card, opened.
type moved struct {
	durable durable    // aliases perm
	moment  checkpoint // aliases vol
	print   sealed.Fingerprint

	perm, vol []byte // secret
}

func (m *moved) clear() {
	clear(m.perm)
	clear(m.vol)
}

// saveState seals the TPM's state of this moment, for outside. Nothing changes.
func (s *slot) saveState() (perm, vol []byte, err error) {
	switch s.phase {
	case abi.SlotOff:
		return nil, nil, fmt.Errorf("save before power-on: %w", errOrder)
	case abi.SlotFailed:
		return nil, nil, errFailed
	case abi.SlotRunning:
	}
	s.image = appendState(append(s.image[:0], s.bound.print[:]...), &s.state)
	defer clear(s.image)
	perm, err = s.seals.Seal(nil, sealed.KindMovedPermanent, s.bound.generation, s.bound.epoch, s.image)
	if err != nil {
		return nil, nil, fmt.Errorf("save: %w", err)
	}
	n, err := s.tpm.Volatile(s.plain[ckptHeaderSize:])
	if err != nil {
		return nil, nil, fmt.Errorf("save: %w", err)
	}
	plain := s.plain[:ckptHeaderSize+n]
	defer clear(plain)
	c := checkpoint{flags: s.flags &^ flagLoaded, seq: s.seq, bound: s.bound, run: s.state.run, boot: s.store.bootID()}
	putCheckpoint(plain, &c, n)
	vol, err = s.seals.Seal(nil, sealed.KindMovedVolatile, s.bound.generation, s.bound.epoch, plain)
	if err != nil {
		return nil, nil, fmt.Errorf("save: %w", err)
	}
	return perm, vol, nil
}

// openMoved opens both parts of a state, and checks that they are of one moment
// of this slot.
func (s *slot) openMoved(perm, vol []byte) (*moved, error) {
	m := &moved{}
	err := s.fillMoved(m, perm, vol)
	if err == nil {
		return m, nil
	}
	m.clear()
	switch {
	case errors.Is(err, sealed.ErrWrongKey):
		err = fmt.Errorf("it was saved by another card: %w", err)
	case errors.Is(err, sealed.ErrForeign):
		err = fmt.Errorf("it is of another slot, or no saved state: %w", err)
	}
	return nil, fmt.Errorf("state to load: %w", err)
}

func (s *slot) fillMoved(m *moved, perm, vol []byte) error {
	var label sealed.Label
	var err error
	if m.perm, label, err = s.seals.Open(nil, sealed.KindMovedPermanent, perm); err != nil {
		return err
	}
	if len(m.perm) < movedHeaderSize {
		return fmt.Errorf("permanent part of %d bytes: %w", len(m.perm), errCorrupt)
	}
	if m.durable, err = parseState(m.perm[movedHeaderSize:]); err != nil {
		return err
	}
	bound := binding{label.Generation, label.Epoch, sealed.Fingerprint(m.perm[:movedHeaderSize])}
	if m.vol, label, err = s.seals.Open(nil, sealed.KindMovedVolatile, vol); err != nil {
		return err
	}
	if m.moment, err = parseCheckpoint(m.vol, label); err != nil {
		return err
	}
	if m.moment.bound != bound || m.moment.run != m.durable.run || len(m.moment.volatile) == 0 {
		return fmt.Errorf("the two parts are not of one moment: %w", errCorrupt)
	}
	m.print, err = sealed.FingerprintOf(vol)
	return err
}

// loadState powers the TPM on for a run in the state that was saved.
//
// Who has a saved state can offer it at any time, and more than once. What keeps
// the TPM's promises is that it is taken only while the permanent state is the
// one that it was saved with, and that taking it makes a new one. A state that was
// loaded, and not used, may be loaded again for another run: so a migration that
// fails after the load goes back to its source.
//
// With an error the slot is as it was, or off, or, if nobody knows what is on
// disk, failed.
func (s *slot) loadState(run [abi.RunIDSize]byte, perm, vol []byte) (abi.PowerOnReply, error) {
	m, err := s.openMoved(perm, vol)
	if err != nil {
		return abi.PowerOnReply{}, err
	}
	defer m.clear()
	known, err := s.recollect()
	if err != nil {
		return abi.PowerOnReply{}, err
	}
	if run == s.state.run {
		return s.loadAgain(run, m, known)
	}
	older, err := s.admit(m, known)
	if err == nil {
		err = s.take(run, m, known, older)
	}
	if err != nil {
		s.dropVolatile()
		return abi.PowerOnReply{}, err
	}
	return abi.PowerOnReply{Resumed: true, Pristine: s.flags&flagPristine != 0, LastSeq: s.seq}, nil
}

// recollect finds out the last moment, of which a slot that is not running has
// only the file. known: there is one, and it goes with the permanent state.
func (s *slot) recollect() (known bool, err error) {
	if s.phase == abi.SlotRunning {
		return true, nil
	}
	if s.vol == nil {
		v, err := openVolatile(s.store, s.state.slotID)
		if errors.Is(err, errForeign) {
			return false, err
		}
		if err != nil {
			return false, nil
		}
		s.vol = v
	}
	c, journal, err := s.current(s.vol)
	if err != nil {
		return false, nil
	}
	clear(c.response)
	clear(c.volatile)
	s.serial, s.journal, s.entries = c.serial, 0, nil
	s.flags = c.flags
	if journal > 0 {
		s.flags = 0
	} else if c.seq < s.minSeq {
		return false, nil // it was set back
	}
	s.seq = max(s.seq, c.seq)
	return c.run == s.state.run, nil
}

// unused tells whether the run began with this very state, and nothing ran since.
func (s *slot) unused(m *moved, known bool) bool {
	return known && s.flags&flagLoaded != 0 && s.state.origin == m.print
}

// loadAgain is for a run that the slot is in: the state was loaded for it
// already, and the answer was lost; or it is the run that it was saved in, which
// goes on at the same moment.
func (s *slot) loadAgain(run [abi.RunIDSize]byte, m *moved, known bool) (abi.PowerOnReply, error) {
	unused, saved := s.unused(m, known), m.moment.bound == s.bound
	if s.phase != abi.SlotRunning {
		s.dropVolatile()
	}
	if !unused && !saved {
		return abi.PowerOnReply{}, s.refuseOlder(m, fmt.Errorf("the run goes on already: %w", sealed.ErrRollback))
	}
	reply, err := s.powerOn(run)
	if err == nil && !unused && s.seq != m.moment.seq {
		err = fmt.Errorf("the run has gone on since the state was saved: %w", errOrder)
	}
	return reply, err
}

// admit decides whether a state may be loaded. older: it may, by permission.
func (s *slot) admit(m *moved, known bool) (older bool, err error) {
	current := m.moment.bound == s.bound
	if s.state.flags&stateFlagExact != 0 {
		// Not even a volatile secret may come twice: see needsExact.
		current = current && known && m.moment.seq == s.seq
	}
	if current || s.unused(m, known) {
		return false, nil
	}
	if err := s.store.goBack(); err != nil {
		return false, s.refuseOlder(m, err)
	}
	return true, nil
}

// refuseOlder says that a state is not the slot's present one, and why it is not
// loaded.
func (s *slot) refuseOlder(m *moved, err error) error {
	was, is := &m.moment.bound, &s.bound
	return fmt.Errorf("the slot was used since this state was saved (it was at %d.%d and is at %d.%d), and is not set back to it: %w",
		was.epoch, was.generation, is.epoch, is.generation, err)
}

// take loads a state and commits it with its run.
func (s *slot) take(run [abi.RunIDSize]byte, m *moved, known, older bool) error {
	if !known {
		if err := s.freshVolatile(); err != nil {
			return err
		}
	}
	next := s.state
	next.pcrs = m.durable.pcrs // which the volatile part has in its PCRs
	next.evidence = nil        // which was for another run
	if older {
		next.permanent, next.flags = m.durable.permanent, m.durable.flags|s.state.flags
		s.log.warn("going back to an older state, as permitted", "from", s.bound.generation, "to", m.moment.bound.generation)
	}
	s.tpm.Stop()
	s.phase = abi.SlotOff
	err := s.load(next.permanent, m.moment.volatile)
	if err == nil && (older || next.flags&stateFlagExact == 0) {
		err = s.stirAlways()
	}
	if err == nil {
		err = s.begin(run, m, &next)
	}
	if errors.Is(err, errUnsure) {
		s.fail("state was loaded and is not known to be durable", err)
	} else if err != nil {
		s.tpm.Stop()
	}
	return err
}

// begin makes what was loaded the slot's state, and the run its run.
func (s *slot) begin(run [abi.RunIDSize]byte, m *moved, next *durable) error {
	s.stored = s.tpm.Stored(s.stored[:0]) // see keepStored
	defer clear(s.stored)
	if len(s.stored) > 0 {
		next.permanent = s.stored
	}
	next.run, next.origin, next.engine = run, m.print, engine.Version()
	at := moment{seq: max(s.seq, m.moment.seq), run: run, flags: m.moment.flags&^flagLoaded | flagLoaded}
	if err := s.writeState(next, &at); err != nil {
		return err
	}
	s.phase, s.over = abi.SlotRunning, false
	return nil
}

// dropVolatile lets go of the volatile file of a slot that does not run.
func (s *slot) dropVolatile() {
	if s.phase == abi.SlotOff && s.vol != nil {
		s.vol.close()
		s.vol = nil
	}
}
