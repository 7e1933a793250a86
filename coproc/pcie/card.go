// SPDX-License-Identifier: Apache-2.0

package pcie

import (
	"context"
	"errors"
	"sync"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/internal/slot"
)

// Card is a card behind a PCI function. It implements coproc.Device.
type Card struct {
	cfg Config
	fn  *function

	mu     sync.Mutex            // guards what follows
	slots  map[string]*slot.Slot // by name; nil: being opened
	engine uint32                // its version, as the last opened slot said
	closed bool
}

var _ coproc.Device = (*Card)(nil)

// Open opens the function and takes its admin queue into service.
func Open(cfg Config) (*Card, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, slot.OpError("open", "", err)
	}
	c := &Card{cfg: cfg, slots: map[string]*slot.Slot{}}
	c.fn = &function{cfg: &c.cfg, rings: map[int]*ring{}}
	if err := c.fn.ready(); err != nil {
		c.fn.close()
		return nil, slot.OpError("open", "", err)
	}
	return c, nil
}

// Info implements coproc.Device. The engine's version is known once a slot was
// opened. The slots are those that can be opened over this function.
func (c *Card) Info(context.Context) (coproc.Info, error) {
	c.fn.mu.Lock()
	slots := c.fn.queues - 1
	c.fn.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return coproc.Info{}, slot.OpError("info", "", coproc.ErrClosed)
	}
	return coproc.Info{
		Driver:        "pcie",
		ABIVersion:    abi.Version,
		EngineVersion: c.engine,
		MaxTransfer:   coproc.MaxTransfer,
		Slots:         slots,
	}, nil
}

// OpenSlot implements coproc.Device.
func (c *Card) OpenSlot(_ context.Context, name string) (coproc.Slot, error) {
	if err := c.reserve(name); err != nil {
		return nil, slot.OpError("open", name, err)
	}
	start := func() (slot.Worker, error) {
		w, err := startWorker(c.fn, name)
		if err != nil {
			return nil, err // not a nil *worker in an interface
		}
		return w, nil
	}
	w, err := start()
	if err != nil {
		c.forget(name)
		return nil, slot.OpError("open", name, err)
	}
	s := slot.New(slot.Config{
		Name:         name,
		Logger:       c.cfg.Logger.With("slot", name),
		Timeout:      c.cfg.Timeout,
		CancelGrace:  c.cfg.CancelGrace,
		AdminTimeout: c.cfg.AdminTimeout,
		Start:        start,
		Release:      func(*slot.Slot) { c.forget(name) },
	}, w)
	c.mu.Lock()
	c.engine = w.Identity().EngineVersion
	late := c.closed
	if !late {
		c.slots[name] = s
	}
	c.mu.Unlock()
	if late {
		return nil, slot.OpError("open", name, errors.Join(coproc.ErrClosed, s.Close()))
	}
	return s, nil
}

// reserve takes a name for the one who is to open it.
func (c *Card) reserve(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return coproc.ErrClosed
	}
	if _, open := c.slots[name]; open {
		return coproc.ErrInUse
	}
	c.slots[name] = nil
	return nil
}

// forget gives a name back.
func (c *Card) forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.slots, name)
}

// Close implements coproc.Device.
func (c *Card) Close() error {
	c.mu.Lock()
	var open []*slot.Slot
	for _, s := range c.slots {
		if s != nil {
			open = append(open, s)
		}
	}
	c.closed = true
	c.mu.Unlock()
	var errs []error
	for _, s := range open {
		errs = append(errs, s.Close())
	}
	c.fn.close()
	return errors.Join(errs...)
}
