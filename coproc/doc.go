// SPDX-License-Identifier: Apache-2.0

// Package coproc is the host's view of a cryptographic coprocessor card.
//
// A card is a [Device]. It holds slots, and each [Slot] is one TPM 2.0 whose
// secrets never leave the card. The host sends raw TPM commands to a slot and
// gets raw TPM responses back; it sees no seed, key or saved state in clear.
//
// # Drivers
//
// Package coproc/coprocd reaches the card behind a daemon's socket, which all
// virtual machines of a host share; package coproc/pcie a card that is a PCI
// function; and package coproc/sim a simulated card of one slot, a child
// process. Every driver passes the one conformance suite in package
// coproc/coproctest, and every driver speaks the mailbox format of package
// coproc/abi to its card. Package coproc/admin manages a card's slots.
//
// # Runs and resets
//
// PCRs live as long as one run of one virtual machine. The run is named by a
// [RunID]. [Slot.PowerOn] with the run the slot already holds resumes it
// exactly, whatever happened to the processes in between; with another run it
// is a power cycle. [Slot.Reset] is a reset inside the run. Nothing else ever
// moves a PCR backwards: a slot that cannot restore its exact state is failed
// ([ErrFailed]) until the next Reset or run.
//
// # Two kinds of error
//
// What the TPM says to the guest (TPM_RC codes, TCG TPM 2.0 Part 2, 6.6) is a
// response, not a Go error. A Go error, always an [*Error], is for the
// operator: it says that the slot or the card did not do its work.
package coproc
