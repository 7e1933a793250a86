// SPDX-License-Identifier: Apache-2.0

// Package accesskey keeps the keys that open slots of a card.
//
// A slot is bound to one Ed25519 key pair (RFC 8032) for life. The card knows
// the public half; whoever holds the private half can open the slot, and nobody
// else can, so its file is what one virtual machine has to keep from another.
//
// # Files
//
// A private key is a PKCS #8 file in PEM (RFC 8410, RFC 7468), as
// "openssl genpkey -algorithm ed25519" writes it, without a password. [Load]
// refuses one that others than its owner may read or write, and [Create] never
// replaces a file. A public key is a "PUBLIC KEY" in PEM, as
// "openssl pkey -pubout" writes it.
package accesskey
