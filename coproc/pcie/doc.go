// SPDX-License-Identifier: Apache-2.0

// Package pcie drives a card that is a PCI function, as described in
// docs/coprocessor-abi.md. It implements coproc.Device.
//
// How the function is reached is a [Transport]. There is one for vfio-user
// ([VFIOUser]), by which a program uses a simulated card without a virtual
// machine and without privilege, and one for the kernel's VFIO ([VFIO]).
//
// # What the card may do
//
// The card is not trusted with this process: it sees one file of pages for queues,
// sealed so that it cannot be made shorter, and everything in them is copied
// once and checked before it is used. A card that breaks the rules costs a
// reset, and at worst the slot; never more.
//
// # When something is lost
//
// In turn, each only if the one before does not help: the slot's queue is
// deleted, the slot opened by its access key and the queue made again, which
// gives the slot a new worker; the function is reset, for all slots; the
// transport is opened again. What happens to the command is decided by package
// coproc/internal/slot, as for every driver.
//
// # Administration
//
// The function's admin queue takes the card's admin commands: a [Card] is an
// admin.Conn. They take turns with the opening and closing of slots, not with
// slots' commands.
package pcie
