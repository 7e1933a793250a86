// SPDX-License-Identifier: Apache-2.0

package coprocd

import (
	"context"
	"errors"
	"sync"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/admin"
	"hwvtpm/coproc/internal/slot"
)

// Card is the card behind a daemon's socket. It implements coproc.Device. It
// holds a connection only while it opens a slot.
type Card struct {
	cfg    Config
	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	mu    sync.Mutex           // guards what follows
	slots map[string]*openSlot // by name; nil: being opened
}

var _ coproc.Device = (*Card)(nil)

// openSlot is a slot that is open, or opened again after its worker was lost.
type openSlot struct {
	*slot.Slot
	cancel context.CancelFunc // of what opens it
}

// Close implements coproc.Slot. It does not wait for a daemon that is away.
func (s *openSlot) Close() error {
	s.cancel()
	return s.Slot.Close()
}

// Open looks whether the daemon is there and speaks our version.
func Open(cfg Config) (*Card, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, slot.OpError("open", "", err)
	}
	c := &Card{cfg: cfg, slots: map[string]*openSlot{}}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if _, err := c.Info(c.ctx); err != nil {
		c.cancel()
		return nil, slot.OpError("open", "", err)
	}
	return c, nil
}

// Info implements coproc.Device.
func (c *Card) Info(ctx context.Context) (coproc.Info, error) {
	if c.ctx.Err() != nil {
		return coproc.Info{}, slot.OpError("info", "", coproc.ErrClosed)
	}
	info := coproc.Info{Driver: "coprocd", MaxTransfer: coproc.MaxTransfer}
	err := c.dial(ctx, func(ctx context.Context, client *admin.Client) error {
		id, err := client.Identify(ctx)
		if err != nil {
			return err
		}
		version, ok := abi.Hello{Min: id.Min, Max: id.Max}.Choose()
		if !ok || id.MaxPayload < coproc.MaxTransfer {
			return coproc.ErrUnsupported
		}
		health, err := client.Health(ctx)
		info.ABIVersion, info.Slots, info.EngineVersion = version, int(id.Slots), health.EngineVersion
		return err
	})
	return info, slot.OpError("info", "", err)
}

// OpenSlot implements coproc.Device.
func (c *Card) OpenSlot(ctx context.Context, name string) (coproc.Slot, error) {
	if err := c.reserve(name); err != nil {
		return nil, slot.OpError("open", name, err)
	}
	s, err := c.openSlot(ctx, name)
	if err == nil && !c.keep(name, s) {
		err = errors.Join(coproc.ErrClosed, s.Close())
	}
	if err != nil {
		c.release(name)
		return nil, slot.OpError("open", name, err)
	}
	return s, nil
}

// reserve makes sure that this process opens a slot once.
func (c *Card) reserve(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil {
		return coproc.ErrClosed
	}
	if _, ok := c.slots[name]; ok {
		return coproc.ErrInUse
	}
	c.slots[name] = nil
	return nil
}

// keep notes an open slot for Close, unless that has been called meanwhile.
func (c *Card) keep(name string, s *openSlot) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil {
		return false
	}
	c.slots[name] = s
	return true
}

// openSlot opens a slot whose name is reserved.
func (c *Card) openSlot(ctx context.Context, name string) (*openSlot, error) {
	life, cancel := context.WithCancel(c.ctx)
	o := &opener{card: c, name: name}
	w, err := o.open(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	inner := slot.New(slot.Config{
		Name:         name,
		Logger:       c.cfg.Logger,
		Timeout:      c.cfg.Timeout,
		CancelGrace:  c.cfg.CancelGrace,
		AdminTimeout: c.cfg.AdminTimeout,
		Patience:     c.cfg.Patience,
		Life:         func() uint64 { return o.epoch },
		Start:        func() (slot.Worker, error) { return o.open(life) },
		Release:      func(*slot.Slot) { c.release(name) },
	}, w)
	return &openSlot{Slot: inner, cancel: cancel}, nil
}

// release forgets a slot that was closed.
func (c *Card) release(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.slots, name)
}

// Close implements coproc.Device.
func (c *Card) Close() error {
	c.mu.Lock()
	c.cancel()
	var open []*openSlot
	for _, s := range c.slots {
		if s != nil {
			open = append(open, s)
		}
	}
	c.mu.Unlock()
	var errs []error
	for _, s := range open {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}
