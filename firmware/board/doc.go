// SPDX-License-Identifier: Apache-2.0

// Package board puts the firmware behind a PCI function, which it serves to a
// vfio-user client: a host driver, or QEMU, which shows it to a guest.
// docs/coprocessor-abi.md describes the function.
//
// A [Card] moves bytes: it takes submissions out of the host's memory, hands
// them to the slot's [Worker] over the slot channel, and puts the answers
// back. It parses no TPM command and holds no secret, so that what a hostile
// host can reach is a process apart from the one with the TPM. A worker that
// dies costs its slot one StatusLost; a client that breaks the protocol loses
// its session.
//
// # Goroutines
//
// The goroutine of [Card.Serve] takes what the client sends, one more per
// worker takes what the worker answers. One mutex guards the card; it is held
// while a worker is started and ended, and never while one works.
package board
