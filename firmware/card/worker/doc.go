// SPDX-License-Identifier: Apache-2.0

// Package worker starts the processes that serve a card's slots, and keeps some
// that have started but serve none yet. Such a spare has been told nothing, so it
// may become the worker of any slot; it never becomes that of a second one.
//
// A worker is the engine with the argument --worker. It gets the supervisor
// channel (package wire) as descriptor 3, and nothing else: no other descriptor,
// no environment, a process group and, if the card is root, a user id of its own
// that no other living worker has.
package worker
