// SPDX-License-Identifier: Apache-2.0

// Coprocd is a simulated card: many TPMs in slots, each in a process of its own,
// for all virtual machines of a host. It serves hosts on a UNIX socket, as a PCI
// function over vfio-user, or both. docs/operations.md says how it is run.
//
// The program keeps the card's storage key and does all work on the disk; what a
// guest can reach is in the workers (hwvtpm-engine), which have neither.
package main
