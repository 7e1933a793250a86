// SPDX-License-Identifier: Apache-2.0

// Package coprocd drives the card behind a daemon's UNIX socket: the simulated
// card that all virtual machines of a host share.
//
// A [Conn] carries admin commands to the daemon (package coproc/admin). A [Card]
// opens slots: it proves over such a connection that it holds the slot's access
// key, and gets two sockets that lead straight to the slot, so that the daemon
// is not on the way of TPM commands.
//
// # When the other side dies
//
// A worker or the whole daemon may die at any time. The driver connects again,
// proves itself again, powers the slot on with the same run, which restores the
// exact state, and submits the unanswered command again under its sequence
// number. The guest notices a delay. If the slot cannot be brought back within
// [Config.Patience], it is failed until Reset or PowerOn.
//
// # When the other side is hostile
//
// The daemon sees every command anyway, so it is trusted with the guest's TPM,
// and with nothing else: whatever it sends is bounded and checked, what it keeps
// back is waited for only so long, and descriptors that are not a slot channel
// are closed. A slot that has been replaced by another of the same name is not
// taken for the one that was open before.
package coprocd
