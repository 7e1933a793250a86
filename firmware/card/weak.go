// SPDX-License-Identifier: Apache-2.0

package card

import "crypto/ed25519"

// weakTries is how many messages weakKey tries. One in eight is enough for the
// best of the weak keys.
const weakTries = 128

// weakKey tells whether anybody can sign for an access key: it is a point of small
// order, such as 32 zeros, which is what a key that was never set looks like. For
// these the signature of nothing, by nobody, is good for one message of a few.
func weakKey(key *[32]byte) bool {
	var sig [ed25519.SignatureSize]byte
	sig[0] = 1 // the neutral point, and the number zero (RFC 8032, 5.1.2 and 5.1.6)
	for i := range weakTries {
		if ed25519.Verify(key[:], []byte{byte(i)}, sig[:]) {
			return true
		}
	}
	return false
}
