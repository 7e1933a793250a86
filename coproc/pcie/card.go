// SPDX-License-Identifier: Apache-2.0

package pcie

import (
	"context"
	"sync"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/internal/slot"
)

// Card is a card behind a PCI function. It implements coproc.Device.
type Card struct {
	cfg Config
	fn  *function

	mu     sync.Mutex // guards what follows
	slot   *slot.Slot // the open slot, if any
	id     abi.Identity
	closed bool
}

var _ coproc.Device = (*Card)(nil)

// Open opens the function and takes its admin queue into service.
func Open(cfg Config) (*Card, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, slot.OpError("open", "", err)
	}
	c := &Card{cfg: cfg}
	c.fn = &function{cfg: &c.cfg}
	if err := c.fn.ready(); err != nil {
		c.fn.close()
		return nil, slot.OpError("open", "", err)
	}
	return c, nil
}

// Info implements coproc.Device. The engine's version is known once a slot was
// opened.
func (c *Card) Info(context.Context) (coproc.Info, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return coproc.Info{}, slot.OpError("info", "", coproc.ErrClosed)
	}
	return coproc.Info{
		Driver:        "pcie",
		ABIVersion:    abi.Version,
		EngineVersion: c.id.EngineVersion,
		MaxTransfer:   coproc.MaxTransfer,
		Slots:         1,
	}, nil
}

// OpenSlot implements coproc.Device.
func (c *Card) OpenSlot(_ context.Context, name string) (coproc.Slot, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return nil, slot.OpError("open", name, coproc.ErrClosed)
	case name != SlotName:
		return nil, slot.OpError("open", name, coproc.ErrNotFound)
	case c.slot != nil:
		return nil, slot.OpError("open", name, coproc.ErrInUse)
	}
	w, err := c.start()
	if err != nil {
		return nil, slot.OpError("open", name, err)
	}
	c.id = w.Identity()
	c.slot = slot.New(slot.Config{
		Name:         SlotName,
		Logger:       c.cfg.Logger,
		Timeout:      c.cfg.Timeout,
		CancelGrace:  c.cfg.CancelGrace,
		AdminTimeout: c.cfg.AdminTimeout,
		Start:        c.start,
		Release:      c.release,
	}, w)
	return c.slot, nil
}

// start starts a worker for slot 0.
func (c *Card) start() (slot.Worker, error) {
	w, err := startWorker(c.fn)
	if err != nil {
		return nil, err // not a nil *worker in an interface
	}
	return w, nil
}

// release forgets a slot that was closed.
func (c *Card) release(s *slot.Slot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.slot == s {
		c.slot = nil
	}
}

// Close implements coproc.Device.
func (c *Card) Close() error {
	c.mu.Lock()
	open := c.slot
	c.closed = true
	c.mu.Unlock()
	var err error
	if open != nil {
		err = open.Close()
	}
	c.fn.close()
	return err
}
