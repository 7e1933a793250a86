// SPDX-License-Identifier: Apache-2.0

// Package admin manages the slots of a card: it makes, lists, parks, locks,
// copies and destroys them, proves the right to open one, and has the card sign
// what it vouches for. What each command does, and who may give it, is in
// docs/coprocessor-abi.md.
//
// A [Client] works over any [Conn] to a card: a daemon's socket (package
// coproc/coprocd) or the admin queue of a PCI function.
//
// Errors are *coproc.Error, with the cause that the card's status stands for
// and the card's own words.
package admin
