// SPDX-License-Identifier: Apache-2.0

// Package board puts the firmware behind a PCI function, which it serves to a
// vfio-user client: a host driver, or QEMU, which shows it to a guest.
// docs/coprocessor-abi.md describes the function.
//
// A [Card] moves bytes: it takes submissions out of the host's memory and puts the
// answers back. Those of the admin queue are executed by a session of package
// card, and those of a slot's queue go over the channel that the session gave when
// the slot was opened. It parses no TPM command. A slot that is lost costs one
// StatusLost; a client that breaks the protocol loses its session, and what it had
// open is closed.
//
// # Goroutines
//
// The goroutine of [Card.Serve] takes what the client sends, one for each open
// slot takes what the slot answers, and one executes an admin command. One mutex
// guards the board; it is held while bytes are moved, and never while anybody
// works.
package board
