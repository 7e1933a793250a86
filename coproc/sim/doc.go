// SPDX-License-Identifier: Apache-2.0

// Package sim drives a simulated card: the program hwvtpm-engine, run as a
// child process, with one slot named [SlotName].
//
// The driver and the child speak the mailbox format of package coproc/abi
// over two socket pairs. No secret of the TPM ever passes to this process:
// the child keeps the state in its directory itself.
//
// # When the child dies
//
// A crash of the TPM engine must cost the guest nothing. The driver starts
// the child again, powers it on with the same run, which restores the exact
// state, and submits the unanswered command again under its sequence number.
// A command that kills two children in a row is answered with
// TPM_RC_FAILURE, and the slot goes on in the state before it. If the child
// cannot be brought back the slot is failed until Reset or PowerOn.
//
// # When a command takes too long
//
// After its timeout a command is canceled. If it still does not end within
// [Config.CancelGrace], the child is killed and brought back in the state
// before the command, which is answered with TPM_RC_CANCELED.
package sim
