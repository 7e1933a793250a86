// SPDX-License-Identifier: Apache-2.0

package emulator

import "sync/atomic"

// Stats counts what a server has done since it was made.
type Stats struct {
	Commands   uint64 // messages on data channels
	Errors     uint64 // of these, answered with a TPM error
	BadSizes   uint64 // of these, refused for their size before the TPM saw them
	SlotErrors uint64 // failures of the slot
	Refused    uint64 // control requests answered with an error
	Cancels    uint64 // cancellations asked for
	PowerOns   uint64 // runs begun
	Resets     uint64 // TPM resets within runs
}

type counters struct {
	commands, errors, badSizes, slotErrors, refused, cancels, powerOns, resets atomic.Uint64
}

// Stats returns the counters as they are now.
func (s *Server) Stats() Stats {
	c := &s.counters
	return Stats{
		Commands:   c.commands.Load(),
		Errors:     c.errors.Load(),
		BadSizes:   c.badSizes.Load(),
		SlotErrors: c.slotErrors.Load(),
		Refused:    c.refused.Load(),
		Cancels:    c.cancels.Load(),
		PowerOns:   c.powerOns.Load(),
		Resets:     c.resets.Load(),
	}
}
