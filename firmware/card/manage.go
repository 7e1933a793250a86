// SPDX-License-Identifier: Apache-2.0

package card

import (
	"context"
	"errors"
	"fmt"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/card/store"
)

// destroy removes a slot for good, and gives the receipt.
func (c *Card) destroy(ctx context.Context, s *slot, ref *abi.SlotRef) ([]byte, error) {
	if s.rec.ID != ref.ID {
		return nil, refuse(abi.StatusNoSlot, "slot %d has another id: it was made anew", s.rec.Number)
	}
	if err := s.enter(ctx, busy); err != nil {
		return nil, err
	}
	epoch, generation := c.store.Newest(s.rec.ID)
	if err := c.store.Remove(s.rec.ID); err != nil {
		if !errors.Is(err, store.ErrFailed) {
			s.leave(nil)
			return nil, err
		}
		// Whether it exists is not known. It stays busy, for it must not
		// save anything that is lost with it.
		s.mu.Lock()
		s.fault = err
		s.mu.Unlock()
		return nil, err
	}
	c.forget(s)
	s.mu.Lock()
	s.gone = true
	s.set(closed)
	s.mu.Unlock()
	if err := c.store.Advance(); err != nil {
		return nil, refuse(abi.StatusStorage, "slot %s is destroyed, but that is not anchored yet: no receipt: %w", s.rec.Name, err)
	}
	if err := c.store.RemoveFiles(s.rec.ID); err != nil {
		c.log.Warn("files of a destroyed slot are left; no state in them is accepted any more", "slot", s.rec.Name, "err", err)
	}
	body := abi.AppendEraseBody(nil, &abi.EraseBody{Generation: generation, Epoch: epoch, Name: s.rec.Name})
	return c.sign(abi.StatementErase, s.rec.ID, ref.Nonce, body)
}

// setLocked locks or unlocks a slot.
func (c *Card) setLocked(ctx context.Context, s *slot, locked bool) error {
	if err := s.enter(ctx, busy); err != nil {
		return err
	}
	err := c.store.SetLocked(s.rec.ID, locked)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.locked = locked
	}
	s.set(closed)
	return err
}

// permitRestore lets the next load of a state go back, once.
func (c *Card) permitRestore(ctx context.Context, s *slot, reason string) error {
	if err := s.enter(ctx, busy); err != nil {
		return err
	}
	c.log.Warn("slot may go back to an older state, once", "slot", s.rec.Name, "reason", reason)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mayRestore = true
	s.set(closed)
	return nil
}

// adopt accepts the state that a slot has, though it was set back.
func (c *Card) adopt(ctx context.Context, s *slot, reason string) error {
	if err := s.enter(ctx, busy); err != nil {
		return err
	}
	d, err := c.store.AdoptState(s.rec.ID, reason)
	if err != nil {
		s.fail(err)
		return fmt.Errorf("slot %s: %w", s.rec.Name, err)
	}
	c.log.Warn("slot adopted", "slot", s.rec.Name, "adoption", d.String())
	s.mu.Lock()
	s.seq = 0 // the volatile state of what was abandoned does not count
	s.mu.Unlock()
	s.leave(nil)
	return nil
}
