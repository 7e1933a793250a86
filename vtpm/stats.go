// SPDX-License-Identifier: Apache-2.0

package vtpm

import "sync/atomic"

// Stats counts what a device has done since it was made.
type Stats struct {
	Commands    uint64 // requests that had the form of a TPM command or nearly
	Errors      uint64 // of these, answered with a TPM error
	BadChains   uint64 // chains that could not carry a request
	SlotErrors  uint64 // commands that the slot failed to serve
	Cancels     uint64 // cancellations asked for by driver or front-end
	PowerOns    uint64 // runs begun or continued
	Resets      uint64 // TPM resets within runs
	BlindStarts uint64 // queue starts without a monitor's word
}

type counters struct {
	commands, errors, badChains, slotErrors, cancels, powerOns, resets, blindStarts atomic.Uint64
}

func (c *counters) response(rc uint32) {
	if rc != 0 {
		c.errors.Add(1)
	}
}

// Stats returns the counters as they are now.
func (d *Device) Stats() Stats {
	c := &d.counters
	return Stats{
		Commands:    c.commands.Load(),
		Errors:      c.errors.Load(),
		BadChains:   c.badChains.Load(),
		SlotErrors:  c.slotErrors.Load(),
		Cancels:     c.cancels.Load(),
		PowerOns:    c.powerOns.Load(),
		Resets:      c.resets.Load(),
		BlindStarts: c.blindStarts.Load(),
	}
}
