// SPDX-License-Identifier: Apache-2.0

// Package wire is what passes between a card and the worker of one of its
// slots: the supervisor channel, which is descriptor [SupervisorFD] of the worker
// and a SOCK_SEQPACKET socket, and the shared memory.
//
// # Messages
//
//	card                                    worker
//	 | Setup, with descriptors                |
//	 |--------------------------------------->|
//	 |                                  Ready |  after a Save, if it makes a TPM
//	 |<---------------------------------------|
//	 |                                   Save |  for each new permanent state,
//	 |<---------------------------------------|  which is in the shared memory
//	 | Saved                                  |
//	 |--------------------------------------->|
//	 | Park                                   |
//	 |--------------------------------------->|  exits
//
// A message is one packet. Integers are little-endian, reserved fields are zero.
// Setup comes once and first. The end of file ends the worker at once: what was
// answered is safe at every moment, so nothing has to be saved.
//
// # Descriptors
//
// They come with Setup, in this order: shared memory; and, unless a TPM is to be
// made, volatile file, data socket and control socket of the slot. The volatile
// file has [VolatileSize] bytes, or none if it is new. Two workers must never map
// it at once: the card locks the open file that it passes (flock), and the lock
// lives as long as the worker's mapping, also when the card dies before it.
//
// # Shared memory
//
// One page of status that the worker writes and the card reads ([Page]), and the
// place for sealed permanent states. The worker trusts the card; the card takes
// nothing in it for true that the seal does not prove.
package wire
