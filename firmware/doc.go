// SPDX-License-Identifier: Apache-2.0

// Package firmware is what runs inside a card: the worker of one slot. It
// reads submissions (package coproc/abi), runs them on libtpms (package
// engine) and keeps the TPM's state.
//
// # Two kinds of worker
//
// A worker of a card ([RunWorker]) has nothing but descriptors: the card keeps
// the files and writes what the worker has sealed (package wire). A worker that
// is its own card ([Run]) keeps a directory, 0700, with files of mode 0600:
//
//	lock      held with flock by the worker; a second worker gets "in use"
//	key       seals the others; no protection from who reads the directory
//	state     what survives the host: identity, run id, permanent state
//	volatile  what survives the worker: checkpoint and journal of this run
//
// state is replaced whole (write, fsync, rename, fsync of the directory)
// before the response to a command that changed the permanent state leaves.
// volatile is a mapping: a store to it survives kill -9, which is all it has
// to survive, since PCRs and sessions end with the host anyhow. Both are sealed
// (package sealed), and the same for both kinds of worker: see storage.
//
// # Rules
//
//  1. A TPM is made only in a missing or empty directory, or when a card says
//     so. Anything else that is not a whole, intact, own state is a hard error,
//     never a new TPM.
//  2. The effect of an acknowledged command is never lost, and a command
//     resubmitted under its sequence number is never executed twice.
//  3. PCRs never go backwards but by a reset or a new run. If the exact
//     state of this run cannot be restored, every command is answered with
//     TPM_RC_FAILURE until one of the two.
//  4. Random numbers never repeat: after a restore the TPM's generator is
//     stirred with fresh entropy before the next command.
//
// The classes of commands and what is written for each are in classify.go,
// the order of writes in checkpoint.go.
//
// # Goroutines
//
// One goroutine, on its own OS thread, owns the slot, the engine and the
// files: it reads, executes and answers in turn with blocking system calls.
// A second one serves the control channel, and watches for the end of the card.
package firmware
