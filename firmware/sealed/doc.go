// SPDX-License-Identifier: Apache-2.0

// Package sealed is a card's sealed store: it encrypts what a card keeps on
// storage that it does not trust, and notices when that storage is set back.
//
// # Keys
//
//	card storage key (CSK), 32 bytes, from a KeySource
//	  |  HKDF-Extract
//	card root                      held by Store
//	  |  HKDF-Expand, slot id
//	slot key                       held by Slot, may be handed to a worker
//	  |  HKDF-Expand, header with the blob's salt
//	blob key                       encrypts one blob, then forgotten
//
// A blob is AES-256-GCM (NIST SP 800-38D) under a key of its own, and its whole
// header is the associated data. HKDF is RFC 5869 with SHA-256.
//
// # Nonces
//
// No key encrypts twice, so the nonce is constant. A blob's key follows from its
// salt, and the salt is a MAC, under the slot key, of 32 fresh random bytes, the
// label and the plaintext. With good random numbers all salts differ. With
// repeated ones, such as after a host was cloned with its memory, two blobs
// share a key only if label and plaintext are the same too, and then they are
// the same blob: an observer learns that, and nothing else. The entries of a
// Journal share a key, and have nonces that follow from them in the same way.
//
// # Rollback
//
// Encryption does not tell an old blob from the current one. An Anchor does: it
// keeps a record of every slot's newest generation and binds the record to a
// monotonic Counter. See anchor.go for the protocol and its window.
//
// # Goroutines and memory
//
// Store and Anchor are safe for concurrent use; a Slot has one owner at a time.
// Keys held here are overwritten when they are not needed any more. The key
// schedules inside crypto/aes and crypto/hmac are out of reach; they go with
// the garbage. A process that holds a Store must not dump core.
package sealed
