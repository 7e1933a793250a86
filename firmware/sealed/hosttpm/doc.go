// SPDX-License-Identifier: Apache-2.0

// Package hosttpm lets a card without a vault of its own use the host's TPM for
// the sealed store: as the source of its storage key, sealed under PCRs, and as
// the monotonic counter of its anchor.
//
// The primary key of the owner hierarchy (the TCG's ECC P-256 storage template)
// is made when it is needed and flushed; nothing is made persistent but the
// counter. Its empty authorization is the TCG's convention: it gives nothing
// away, since what is sealed under it has a policy of its own.
//
// # The bus
//
// Whoever listens between processor and TPM must not see the key. It crosses in
// sessions that are salted with the primary key and encrypt their parameters
// (TPM 2.0 Part 1, "Session-Based Encryption"). The primary key's name is kept
// with the sealed key and compared at each use, so somebody who also alters what
// crosses would have had to be there when the key was sealed. The counter's
// answers are authenticated with a secret that only card and TPM have.
//
// # Goroutines
//
// A transport is used by one goroutine at a time: Source and Counter may share
// one only if their users take turns.
package hosttpm
