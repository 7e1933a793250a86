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
//	 |                                Certify |  if it makes a TPM, or is to write
//	 |<---------------------------------------|  certificates; they pass in the
//	 | Certified                              |  shared memory
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
// made, the slot's volatile file; and, if it is to be served, its data socket and
// control socket. The volatile file has [VolatileSize] bytes, or none if it is new.
// Two workers must never map it at once: the card locks the open file that it
// passes (flock), and the lock lives as long as the worker's mapping, also when the
// card dies before it.
//
// # Shared memory
//
// One page of status that the worker writes and the card reads ([Page]), and the
// place for sealed permanent states and for certificates. The worker trusts the
// card; the card takes nothing in it for true that the seal does not prove, but what
// a worker that makes a TPM says of it.
package wire
