// SPDX-License-Identifier: Apache-2.0

package vtpm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hwvtpm/coproc"
)

// resetTimeout bounds one reset of the slot; a reset takes about a
// millisecond.
const resetTimeout = 10 * time.Second

// Monitor knows whether the virtual machine was reset. [QMPMonitor] asks
// QEMU.
type Monitor interface {
	// Poll takes in everything that the monitor has already been told and
	// reports whether the machine was reset since the last Poll that
	// reported it. It never waits for QEMU: a vhost-user reply may be owed
	// to it, and QEMU's only main thread would then be waiting for us. err
	// means that there is no connection that could have told; reset is
	// valid all the same.
	Poll() (reset bool, err error)
}

// PowerOn begins or continues a run: it is called when a virtual machine has
// connected, before its first command. The slot's volatile state survives if
// it belongs to the same run and is gone otherwise. If it should survive and is
// damaged, the TPM answers failure until the machine is reset, which is no error
// here: a machine without its device could not even be heard to reset.
func (d *Device) PowerOn(ctx context.Context, run coproc.RunID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.powered.Load() && d.run == run {
		return nil
	}
	d.powered.Store(false)
	res, err := d.slot.PowerOn(ctx, run)
	failed := errors.Is(err, coproc.ErrFailed)
	if err != nil && !failed {
		return fmt.Errorf("vtpm: power-on: %w", err)
	}
	d.run = run
	d.counters.powerOns.Add(1)
	switch {
	case failed:
		d.log.Error("the TPM answers failure until the virtual machine is reset", "error", err)
	case res.Resumed:
		d.log.Info("the TPM continues where this virtual machine left it")
	default:
		d.resetPending.Store(false)
		d.log.Info("the TPM is powered on")
	}
	d.powered.Store(true)
	return nil
}

// CheckMonitor acts on what the monitor knows. It is called when the monitor
// has news, from any goroutine. If the machine was reset and a ring is running
// all the same, the TPM is reset before the next command, otherwise now; resets
// with nothing executed in between are one reset.
func (d *Device) CheckMonitor() {
	d.mu.Lock()
	defer d.mu.Unlock()
	// A lost connection matters at the next ring start and is reported there.
	_ = d.pollLocked()
	if !d.running && d.powered.Load() {
		// A failure is logged, stays pending and is answered per command.
		_ = d.settleLocked()
	}
}

func (d *Device) pollLocked() error {
	if d.monitor == nil {
		return nil
	}
	reset, err := d.monitor.Poll()
	if reset {
		d.resetPending.Store(true)
	}
	return err
}

// ready reports whether a command may reach the TPM, and first does what must
// come before it.
func (d *Device) ready() error {
	if d.powered.Load() && !d.resetPending.Load() {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.settleLocked()
}

// settleLocked carries out a pending reset. A reset that fails stays pending,
// so the TPM answers failure rather than go on with the old PCRs unnoticed.
//
// Preconditions: d.mu is held.
func (d *Device) settleLocked() error {
	if !d.powered.Load() {
		return errNotPowered
	}
	if !d.resetPending.Swap(false) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), resetTimeout)
	defer cancel()
	if err := d.slot.Reset(ctx); err != nil {
		d.resetPending.Store(true)
		if d.quiet.CompareAndSwap(false, true) { // each command tries again
			d.log.Error("resetting the TPM failed; it answers TPM_RC_FAILURE until this works", "error", err)
		}
		return fmt.Errorf("vtpm: reset: %w", err)
	}
	d.counters.resets.Add(1)
	d.log.Info("the virtual machine was reset: the TPM is reset")
	return nil
}

// Start is called when the command queue is about to run. features are the
// negotiated ones; base is the ring state it starts from, as in vhost-user's
// "vring state description".
func (d *Device) Start(_ int, features uint64, base uint32) error {
	d.framed.Store(features&(1<<FeatureFramed) != 0 && d.layouts&LayoutFramed != 0)
	d.mu.Lock()
	defer d.mu.Unlock()
	switch d.policy {
	case PolicyQMP:
		err := d.pollLocked()
		if err != nil {
			d.counters.blindStarts.Add(1)
			if !d.blind { // the guest can start its queue as often as it likes
				d.log.Warn("the queue starts without word from the QMP monitor: PCRs are kept", "error", err)
			}
		}
		d.blind = err != nil
	case PolicyReset:
		if freshRing(features, base) {
			d.resetPending.Store(true)
		}
	}
	d.running = true
	if d.powered.Load() {
		_ = d.settleLocked() // as in CheckMonitor
	}
	return nil
}

// Stop is called when the queue has stopped and no Handle is running.
func (d *Device) Stop(int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.running = false
}

// Reset is a virtio device reset asked for by the front-end. A guest driver
// can cause one at will, so the TPM does not notice (docs/threat-model.md).
func (d *Device) Reset() error { return nil }

// freshRing reports whether a ring starts from its beginning, as after a
// driver's probe, rather than where it was stopped.
func freshRing(features uint64, base uint32) bool {
	const packed, packedStart = 1 << 34, 1<<31 | 1<<15
	if features&packed != 0 {
		return base == packedStart
	}
	return base == 0
}
