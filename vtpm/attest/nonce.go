// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto/sha256"
	"fmt"
)

// Sizes of a verifier's nonce in bytes. It is the qualifying data of the machine's
// quote as it is, so that stock tools do: TPM2B_DATA holds 66 at most.
const (
	MinNonce = 16
	MaxNonce = 64
)

// CheckNonce says whether a nonce is of a size that this package takes.
func CheckNonce(nonce []byte) error {
	if len(nonce) < MinNonce || len(nonce) > MaxNonce {
		return fmt.Errorf("%w, not %d", ErrNonce, len(nonce))
	}
	return nil
}

const (
	hostNonceLabel = "hwvtpm host nonce 1"
	cardDataLabel  = "hwvtpm card binding 1"
)

// HostNonce is the qualifying data of the host's quote, and the nonce of a fresh
// statement of the card. It is made from the verifier's nonce and the TPMS_ATTEST
// of the machine's quote, so a host's quote serves for one answer of one machine:
//
//	SHA-256("hwvtpm host nonce 1" || nonce || SHA-256(TPMS_ATTEST))
func HostNonce(nonce, vmAttest []byte) [32]byte {
	digest := sha256.Sum256(vmAttest)
	h := sha256.New()
	h.Write([]byte(hostNonceLabel))
	h.Write(nonce)
	h.Write(digest[:])
	return [32]byte(h.Sum(nil))
}

// CardData is the qualifying data of the quote by which a host's TPM binds the
// coprocessor with this public key, a SubjectPublicKeyInfo in DER:
//
//	SHA-256("hwvtpm card binding 1" || SubjectPublicKeyInfo)
//
// A nonce of HostNonce can't be one of these, nor the other way round.
func CardData(spki []byte) [32]byte {
	return sha256.Sum256(append([]byte(cardDataLabel), spki...))
}
