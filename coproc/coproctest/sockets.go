// SPDX-License-Identifier: Apache-2.0

package coproctest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/internal/link"
	"hwvtpm/coproc/internal/slot"
)

// socketTimeout bounds everything over sockets. It is a guard against hanging.
const socketTimeout = 2 * time.Minute

// Starter starts a worker of the one slot under test, and gives the driver's ends
// of its data and control socket, which are the caller's then. ended is called
// when both are closed, and waits until the worker has let go of the slot.
type Starter func() (data, control int, ended func(), err error)

// RunOverSockets runs the suite on a card that is no more than the sockets of a
// worker. open gives the Starter of a slot with a new TPM.
func RunOverSockets(t *testing.T, open func(t *testing.T) Starter) {
	Run(t, func(t *testing.T) coproc.Device { return OverSockets(open(t)) })
}

// OverSockets gives a card whose one slot, SlotName, is reached over sockets.
func OverSockets(start Starter) coproc.Device { return &socketCard{start: start} }

type socketCard struct {
	start Starter

	mu     sync.Mutex // guards what follows
	slot   *slot.Slot // the open slot, if any
	closed bool
}

func (c *socketCard) opError(err error) error { return slot.OpError("open", SlotName, err) }

// Info implements coproc.Device.
func (c *socketCard) Info(context.Context) (coproc.Info, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return coproc.Info{}, c.opError(coproc.ErrClosed)
	}
	return coproc.Info{Driver: "sockets", ABIVersion: abi.Version, MaxTransfer: coproc.MaxTransfer, Slots: 1}, nil
}

// OpenSlot implements coproc.Device.
func (c *socketCard) OpenSlot(_ context.Context, name string) (coproc.Slot, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return nil, c.opError(coproc.ErrClosed)
	case name != SlotName:
		return nil, c.opError(coproc.ErrNotFound)
	case c.slot != nil:
		return nil, c.opError(coproc.ErrInUse)
	}
	w, err := c.worker()
	if err != nil {
		return nil, c.opError(err)
	}
	c.slot = slot.New(slot.Config{
		Name: SlotName, Logger: hclog.NewNullLogger(),
		Timeout: socketTimeout, CancelGrace: socketTimeout, AdminTimeout: socketTimeout,
		Start: c.worker, Release: c.release,
	}, w)
	return c.slot, nil
}

func (c *socketCard) release(*slot.Slot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slot = nil
}

// Close implements coproc.Device.
func (c *socketCard) Close() error {
	c.mu.Lock()
	open := c.slot
	c.closed = true
	c.mu.Unlock()
	if open == nil {
		return nil
	}
	return open.Close()
}

// worker starts a worker and greets it.
func (c *socketCard) worker() (slot.Worker, error) {
	data, control, ended, err := c.start()
	if err != nil {
		return nil, err
	}
	l, err := link.New(data, control)
	if err != nil {
		ended()
		return nil, err
	}
	w := &socketWorker{Link: l, ended: ended}
	if w.identity, err = slot.Greet(w, SlotName, socketTimeout); err != nil {
		w.Kill()
		return nil, err
	}
	return w, nil
}

// socketWorker is a worker that ends when its sockets do. It implements
// slot.Worker.
type socketWorker struct {
	*link.Link
	identity abi.Identity
	ended    func()
}

// Identity implements slot.Worker.
func (w *socketWorker) Identity() abi.Identity { return w.identity }

// Stop implements slot.Worker.
func (w *socketWorker) Stop(timeout time.Duration) error {
	_, err := slot.Call(w, &abi.Submission{Op: abi.OpClose}, timeout)
	w.Kill()
	return err
}

// Kill implements slot.Worker. There is no force: the end of the sockets cancels
// what runs.
func (w *socketWorker) Kill() string {
	w.Close()
	w.ended()
	return "sockets closed"
}
