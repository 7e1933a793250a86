// SPDX-License-Identifier: Apache-2.0

// Package ekcerttest is an authority for tests of cards: a root, an attestation
// authority and a host, which certify a card's key as a real host's TPM does. Keylime is a
// judge of what cards certify.
package ekcerttest
