// SPDX-License-Identifier: Apache-2.0

// Package store is a card's directory: the sealed table of its slots, each slot's
// files, the anchor that notices when they are set back, and the card's own key.
//
//	DIR/              0700, of the card's user
//	  lock            flock(2) of the one card that is open; who holds it
//	  key | key.tpm   card storage key, in clear or sealed by the host's TPM
//	  counter         without a host TPM
//	  anchor          newest position of table and slots
//	  table           sealed: what slots there are
//	  identity        sealed: the key that signs statements and certificates
//	  certificates    in clear: those of that key, if the card was given any
//	  slots/ID/       ID is the slot's, in hexadecimal
//	    state         sealed by the slot's worker: the permanent state
//	    certificates  in clear: endorsement keys and what was issued for them
//	    volatile      mapped by the slot's worker, sealed in parts: see package firmware
//
// # What there is
//
// A slot exists if the table has it, and a card exists if it is whole. A slot is
// made state first and then table, and goes the other way round:
//
//	make     state written, synced | table written, synced | both noted
//	destroy  table written, synced | noted, forgotten, anchored | files removed
//
// So a crash leaves a directory that the table does not have, at worst. Such a
// one is logged and never removed: a table could have lost it.
//
// # Errors
//
// A write that did not happen changes nothing, and is told. After a write of
// which it is not known whether it outlives a power cut the table takes no
// change any more until the store is opened again; a slot's state is written
// again before the slot runs the next time.
//
// # Goroutines
//
// A Store is safe for concurrent use. Calls for different slots don't wait for
// each other; changes of the table do. One slot's directory is used by one
// goroutine at a time.
package store
