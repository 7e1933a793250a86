// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"crypto/rand"
	"errors"
	"fmt"

	"hwvtpm/firmware/engine"
	"hwvtpm/firmware/provision"
	"hwvtpm/firmware/sealed"
	"hwvtpm/firmware/wire"
)

// make makes the TPM of a new slot. It exists for the card from the moment on
// that the card has saved it; before, nothing of it is left.
func (w *worker) make(setup *wire.Setup, u *supervised) error {
	d, eks, err := w.manufacture(setup, u)
	w.tpm.Stop()
	defer clear(d.permanent)
	if err == nil {
		err = saveNew(setup, u, &d)
	}
	if u.broken != nil {
		return u.broken
	}
	if err != nil {
		return w.refuse(err)
	}
	return w.ready(&wire.Ready{Generation: d.generation, Epoch: setup.Epoch, EKs: provision.Names(eks)})
}

// manufacture makes a TPM: from nothing, of another slot's, or of one that lived
// elsewhere.
func (w *worker) manufacture(setup *wire.Setup, u *supervised) (durable, []provision.EK, error) {
	d := durable{slotID: setup.Slot, generation: setup.UsedGeneration + 1, engine: engine.Version()}
	rand.Read(d.run[:]) // no run at all: nobody can name it
	b := &workbench{tpm: w.tpm}
	var res provision.Result
	var err error
	switch {
	case setup.Flags&wire.Import != 0:
		res.EKs, err = b.takeOver(setup, u)
	case setup.Flags&wire.Clone != 0:
		if d.flags, err = b.take(setup, u); err == nil {
			res, err = provision.NewIdentity(b, b.restart, setup.Keys)
		}
	default:
		if err = b.Manufacture(); err == nil {
			res, err = provision.Provision(b, b.restart, setup.Keys, setup.Banks)
		}
	}
	if err == nil {
		err = b.certify(setup, u, res.EKs)
	}
	b.keep()
	if err == nil && len(b.perm) == 0 {
		err = errors.New("libtpms stored no state for a new TPM")
	}
	if err != nil {
		clear(b.perm)
		return durable{}, nil, err
	}
	d.permanent = b.perm
	return d, res.EKs, nil
}

// saveNew has the state of a new slot made durable.
func saveNew(setup *wire.Setup, u *supervised, d *durable) error {
	seals, err := sealsOf(setup.Slot, &setup.Key)
	if err != nil {
		return err
	}
	defer seals.Close()
	image := appendState(nil, d)
	defer clear(image)
	blob, err := seals.Seal(u.image(), sealed.KindPermanent, d.generation, setup.Epoch, image)
	if err != nil {
		return err
	}
	if err := u.replace(blob); err != nil {
		return fmt.Errorf("%w: %w", errNotWritten, err)
	}
	return nil
}

// workbench is a TPM that is taken through power cycles before it is anybody's.
type workbench struct {
	tpm
	perm []byte // permanent state, secret
}

// keep takes what libtpms has stored.
func (b *workbench) keep() {
	if p := b.Stored(nil); len(p) > 0 {
		clear(b.perm)
		b.perm = p
	}
}

// restart is a power cycle that keeps the permanent state. What libtpms stores
// at the start itself is dropped, as slot.load does.
func (b *workbench) restart() error {
	b.keep()
	if err := b.Load(b.perm, nil); err != nil {
		return err
	}
	clear(b.Stored(nil))
	return nil
}

// take takes another slot's TPM, whose sealed state is in the shared memory, and
// gives the flags of its state.
func (b *workbench) take(setup *wire.Setup, u *supervised) (flags uint32, err error) {
	seals, err := sealsOf(setup.Source, &setup.SourceKey)
	if err != nil {
		return 0, err
	}
	defer seals.Close()
	d, bound, err := openState(seals, u.blob(setup))
	if err != nil {
		return 0, err
	}
	b.perm = d.permanent
	return d.flags, checkPosition(setup, &bound)
}

// takeOver takes a TPM that has lived elsewhere, whose state is in the shared memory
// in clear, and tries it.
func (b *workbench) takeOver(setup *wire.Setup, u *supervised) ([]provision.EK, error) {
	b.perm = u.blob(setup)
	clear(u.shared[wire.BlobOffset:][:setup.BlobLen])
	eks, err := provision.Identify(b, b.restart)
	if err != nil {
		return nil, fmt.Errorf("the state is none of a TPM that this card can run: %w: %w", err, errCorrupt)
	}
	return eks, nil
}
