// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"crypto/rand"
	"errors"
	"fmt"

	"hwvtpm/firmware/engine"
	"hwvtpm/firmware/sealed"
)

// openSlot locks the directory and reads the state, or makes a new TPM if
// the directory is new. The TPM does not run yet.
func openSlot(path string, t tpm, log logger) (*slot, error) {
	dir, err := openDir(path)
	if err != nil {
		return nil, err
	}
	s, err := openIn(dir, t, log)
	if err != nil {
		dir.close()
		return nil, err
	}
	return s, nil
}

func openIn(dir *stateDir, t tpm, log logger) (*slot, error) {
	fresh, err := dir.isNew()
	if err != nil {
		return nil, err
	}
	if fresh {
		return createIn(dir, t, log)
	}
	s, err := readIn(dir, t, log)
	if errors.Is(err, errCorrupt) || errors.Is(err, sealed.ErrWrongKey) {
		return nil, fmt.Errorf("%s: %w; restore state and key from a backup, or name an empty directory to make a new TPM", dir.path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir.path, err)
	}
	return s, nil
}

// createIn makes a new TPM in a new directory. The key comes first: a state is
// never there without it.
func createIn(dir *stateDir, t tpm, log logger) (*slot, error) {
	d := durable{generation: 1, engine: engine.Version()}
	rand.Read(d.slotID[:])
	rand.Read(d.run[:]) // no run at all: nobody can name it
	if err := t.Manufacture(); err != nil {
		return nil, err
	}
	d.permanent = t.Stored(nil)
	t.Stop()
	if len(d.permanent) == 0 {
		return nil, errors.New("libtpms stored no state for a new TPM")
	}
	if err := dir.makeKey(); err != nil {
		return nil, err
	}
	seals, err := dir.seals(d.slotID)
	if err != nil {
		return nil, err
	}
	image := appendState(nil, &d)
	defer clear(image)
	blob, err := seals.Seal(nil, sealed.KindPermanent, d.generation, 0, image)
	if err == nil {
		err = dir.replace(blob)
	}
	if err == nil {
		err = dir.mark(d.slotID)
	}
	if err != nil {
		return nil, err
	}
	s := newSlot(dir, seals, t, log)
	s.state, s.used = d, d.generation
	if s.bound, err = bindingOf(blob); err != nil {
		return nil, err
	}
	log.info("made a new TPM", "dir", dir.path, "slot", fmt.Sprintf("%x", d.slotID))
	return s, nil
}

// readIn reads the TPM of a directory.
func readIn(dir *stateDir, t tpm, log logger) (*slot, error) {
	blob, err := dir.readState()
	if err != nil {
		return nil, err
	}
	// Which slot it is only the state says: the seal proves it, the mark
	// compares it.
	label, err := stateLabel(blob)
	if err != nil {
		return nil, err
	}
	seals, err := dir.seals(label.Slot)
	if err != nil {
		return nil, err
	}
	s := newSlot(dir, seals, t, log)
	if err := s.adoptBlob(blob); err != nil {
		return nil, err
	}
	if err := dir.checkMark(s.state.slotID); err != nil {
		return nil, err
	}
	return s, s.look()
}
