// SPDX-License-Identifier: Apache-2.0

// Package emulator serves a TPM slot to QEMU's own TPM devices. It is the
// server side of `-tpmdev emulator`, the protocol of swtpm's control channel,
// so guests that have no virtio TPM driver (firmware, Windows, stock Linux)
// get the same TPM behind tpm-crb or tpm-tis.
//
// # Two channels
//
// QEMU connects to one UNIX socket, the control channel, and hands over the
// other end of a socket pair, the data channel, with SET_DATAFD. TPM commands
// and responses pass through the data channel as they are; everything else,
// from power to locality, is a request on the control channel:
//
//	QEMU                     control channel            Session
//	 | -- SET_DATAFD + fd ------------------------------> |  data channel begins
//	 | == any command (version probe) ==================> |  TPM_RC_FAILURE: off
//	 | -- GET_CAPABILITY, STOP, SET_BUFFERSIZE ---------> |
//	 | -- INIT -----------------------------------------> |  Slot.PowerOn
//	 | == command ======================================> |  Slot.Execute
//	 | -- CANCEL_TPM_CMD -------------------------------> |  Slot.Cancel, meanwhile
//	 | -- HASH_START, HASH_DATA, HASH_END --------------> |  Hasher.HashSequence
//	 | -- STOP, SET_BUFFERSIZE, INIT (machine reset) ---> |  Slot.Reset
//	 | -- SHUTDOWN, or hang-up -------------------------> |  TPM2_Shutdown
//
// docs/tpm-emulator.md has the requests with their sizes and codes, and each
// difference to swtpm with its reason.
//
// # When the TPM is reset
//
// INIT is _TPM_Init. QEMU sends it when it starts and at each reset of the
// machine, and no guest can make it send one otherwise, so this face needs no
// monitor and has no reset policy. See package vtpm for the face that does.
//
// # When the TPM moves
//
// The state of a slot that is a StateMover travels in QEMU's stream. A [Holder]
// makes any slot of a card one that also passes from one process to another.
//
// # Goroutines
//
// One goroutine serves the control channel and one the data channel. The data
// channel is used with blocking system calls and not through the runtime's
// poller, as a slot's link is, and a command allocates nothing. Only CANCEL
// and the end of the session reach past a running command; every other request
// that changes the TPM's power waits for it.
package emulator
