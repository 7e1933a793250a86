// SPDX-License-Identifier: Apache-2.0

// Package swtpmstate reads the permanent state of a TPM 2.0 that swtpm keeps in a
// directory, so that a virtual machine can be taken over with its TPM. It writes
// nothing.
//
// # The file tpm2-00.permall
//
//	 0        1        2                 4                 6                10
//	+--------+--------+-----------------+-----------------+----------------+----
//	| version| oldest | header size, 10 | flags           | size of it all | parts
//	+--------+--------+-----------------+-----------------+----------------+----
//
// Big-endian. A part is a tag (2), a length (4) and that many bytes. Without a key
// there is one with libtpms' state (tag 1). With a key there are: that state,
// padded as in PKCS #7 to a multiple of the key's length, and encrypted by AES-CBC
// (tag 2); HMAC-SHA256 by the same key over ciphertext and initialization vector
// (tag 3); and the vector (tag 6), which is as long as the key. Flag 1: encrypted;
// flag 8: with 256 bits instead of 128.
//
// A file that was written before this format, by swtpm before 0.1, is not read.
//
// Without a key nothing in the file tells a flipped bit from the state itself.
package swtpmstate
