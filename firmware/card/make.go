// SPDX-License-Identifier: Apache-2.0

package card

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/card/store"
	"hwvtpm/firmware/sealed"
	"hwvtpm/firmware/wire"
)

// making is the job of a worker that makes a TPM. Its state is kept until the
// TPM is whole: then the slot is created with it, all at once.
type making struct {
	issuing
	blob []byte
}

func (*making) check(sealed.Label) error { return nil }
func (*making) ended(*run)               {}

func (m *making) save(_ sealed.Label, blob []byte, older bool) error {
	if older {
		return errNotPermitted
	}
	m.blob = bytes.Clone(blob)
	return nil
}

// create makes a slot with a new TPM.
func (c *Card) create(ctx context.Context, req *abi.SlotCreate) (*slot, error) {
	if req.Flags != 0 {
		return nil, refuse(abi.StatusBadField, "flags %#x are for a clone", req.Flags)
	}
	return c.make(ctx, req, &wire.Setup{Flags: wire.Create, Keys: req.Keys, Banks: req.Banks}, nil)
}

// clone makes a slot with what another one's TPM has stored, and with endorsement
// keys of its own.
func (c *Card) clone(ctx context.Context, source *slot, req *abi.SlotCreate) (*slot, error) {
	if req.Flags != abi.CreateNewIdentity {
		return nil, refuse(abi.StatusBadField, "a clone has to have a new identity")
	}
	if err := source.enter(ctx, busy); err != nil {
		return nil, err
	}
	defer source.leave(nil)
	blob, err := c.store.ReadState(source.rec.ID)
	if err != nil {
		return nil, err
	}
	setup, err := source.setup(wire.Clone, blob) // of the source, which the new one becomes the source of
	if err != nil {
		return nil, err
	}
	setup.Source, setup.SourceKey = setup.Slot, setup.Key
	setup.MinSeq, setup.UsedGeneration = 0, 0
	setup.Keys = req.Keys
	req.Banks = source.rec.Banks // they are part of what is cloned
	return c.make(ctx, req, setup, blob)
}

// make has a worker make a TPM, and creates the slot.
func (c *Card) make(ctx context.Context, req *abi.SlotCreate, setup *wire.Setup, blob []byte) (*slot, error) {
	defer setup.Clear()
	if weakKey(&req.AccessKey) {
		return nil, refuse(abi.StatusBadField, "access key %x is one that anybody can sign for: give a key pair's public key", req.AccessKey)
	}
	rec := store.Record{
		Name: req.Name, AccessKey: req.AccessKey, Keys: req.Keys, Banks: req.Banks, Created: time.Now().Unix(),
	}
	if err := c.store.Free(rec); err != nil { // before the work
		return nil, err
	}
	rand.Read(rec.ID[:])
	key, err := c.store.SlotKey(rec.ID)
	if err != nil {
		return nil, err
	}
	defer key.Clear()
	setup.Flags |= c.curves()
	setup.Slot, setup.Key = rec.ID, [32]byte(key.Bytes())
	setup.Boot, setup.Epoch = c.boot, c.store.Epoch()
	setup.Flags |= wire.Certifies
	m := &making{issuing: issuing{card: c, vm: req.Name, keepNV: setup.Flags&wire.Import != 0}}
	m.chain, _ = c.issuers() // without one there are no certificates
	ready, err := c.runMaker(ctx, m, setup, blob)
	if err == nil {
		err = m.agree(ready.EKs)
	}
	if err != nil {
		return nil, err
	}
	rec.EKs = ready.EKs
	if setup.Flags&wire.Import != 0 {
		rec.Keys = keysAt(ready.EKs)
	}
	if rec, err = c.store.Create(rec, m.blob, m.list, c.cfg.MaxSlots); rec.Name == "" {
		return nil, err
	}
	s := newSlot(c, rec)
	s.usedEpoch, s.used = ready.Epoch, ready.Generation
	c.insert(s)
	return s, err
}

// runMaker runs the worker to its end. When it returns, m is the caller's alone.
func (c *Card) runMaker(ctx context.Context, m *making, setup *wire.Setup, blob []byte) (wire.Ready, error) {
	r, err := c.start(ctx, c.waits.work, m, setup, blob)
	if err != nil {
		return wire.Ready{}, err
	}
	ready, err := r.finish(ctx)
	if err != nil {
		return wire.Ready{}, fmt.Errorf("make a TPM: %w", err)
	}
	if m.blob == nil {
		return wire.Ready{}, fmt.Errorf("make a TPM: worker saved none: %w", wire.ErrMalformed)
	}
	return ready, nil
}

// finish waits for the end of a worker that has one thing to do. When it returns,
// the job is the caller's alone.
func (r *run) finish(ctx context.Context) (wire.Ready, error) {
	ready, err := r.await(ctx, makeTimeout)
	if err != nil {
		return wire.Ready{}, err
	}
	select {
	case <-r.done:
	case <-time.After(exitGrace):
		r.proc.Kill() // it has nothing left to do
		<-r.done
	}
	if ready.Status != abi.StatusOK {
		return wire.Ready{}, refuse(ready.Status, "worker: %s", ready.Text)
	}
	return ready, nil
}
