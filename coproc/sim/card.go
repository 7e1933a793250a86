// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"sync"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/internal/slot"
)

// Card is a simulated card. It implements coproc.Device.
type Card struct {
	cfg Config

	mu     sync.Mutex // guards what follows
	first  *worker    // started by Open, waiting for OpenSlot
	slot   *slot.Slot // the open slot, if any
	id     abi.Identity
	closed bool
}

var _ coproc.Device = (*Card)(nil)

// Open starts the card's worker, which locks and checks the state directory,
// and makes a new TPM if that is missing or empty.
func Open(cfg Config) (*Card, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, opError("open", err)
	}
	w, err := startWorker(&cfg)
	if err != nil {
		return nil, opError("open", err)
	}
	return &Card{cfg: cfg, first: w, id: w.identity}, nil
}

func opError(op string, err error) error { return slot.OpError(op, SlotName, err) }

// Info implements coproc.Device.
func (c *Card) Info(context.Context) (coproc.Info, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return coproc.Info{}, opError("info", coproc.ErrClosed)
	}
	return coproc.Info{
		Driver:        "sim",
		ABIVersion:    c.id.Version,
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
		return nil, opError("open", coproc.ErrClosed)
	case name != SlotName:
		return nil, &coproc.Error{Op: "open", Slot: name, Err: coproc.ErrNotFound}
	case c.slot != nil:
		return nil, opError("open", coproc.ErrInUse)
	}
	w := c.first
	c.first = nil
	if w == nil {
		var err error
		if w, err = startWorker(&c.cfg); err != nil {
			return nil, opError("open", err)
		}
	}
	c.slot = slot.New(slot.Config{
		Name:         SlotName,
		Logger:       c.cfg.Logger,
		Timeout:      c.cfg.Timeout,
		CancelGrace:  c.cfg.CancelGrace,
		AdminTimeout: c.cfg.StartTimeout,
		Start:        c.start,
		Release:      c.release,
	}, w)
	return c.slot, nil
}

// start starts another worker for the open slot.
func (c *Card) start() (slot.Worker, error) {
	w, err := startWorker(&c.cfg)
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
	open, w := c.slot, c.first
	c.closed, c.first = true, nil
	c.mu.Unlock()
	if w != nil {
		return opError("close", w.Stop(c.cfg.StartTimeout))
	}
	if open != nil {
		return open.Close()
	}
	return nil
}
