// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// Credential is a secret that only one TPM can open, in the form of
// TPM2_ActivateCredential's parameters, with their sizes in front: what
// go-attestation calls EncryptedCredential, and tpm2-tools puts into its file
// after a header of eight bytes.
type Credential struct {
	Blob   []byte `json:"credential_blob"` // TPM2B_ID_OBJECT
	Secret []byte `json:"secret"`          // TPM2B_ENCRYPTED_SECRET
}

// secretSize is that of the credential: not more than the digest of any EK's name.
const secretSize = 32

// makeCredential draws a secret and wraps it for an object of a name beside an EK:
// TPM 2.0 Part 1, "Credential Protection".
func makeCredential(ek crypto.PublicKey, name []byte) (Credential, []byte, error) {
	pub, err := ekTemplate(ek)
	if err != nil {
		return Credential{}, nil, err
	}
	key, err := tpm2.ImportEncapsulationKey(pub)
	if err != nil {
		return Credential{}, nil, fmt.Errorf("%w: the EK: %w", ErrRequest, err)
	}
	secret := make([]byte, secretSize)
	rand.Read(secret) // never fails
	blob, wrapped, err := tpm2.CreateCredential(rand.Reader, key, name, secret)
	if err != nil {
		return Credential{}, nil, fmt.Errorf("enrol: make a credential: %w", err)
	}
	return Credential{
		Blob:   tpm2.Marshal(tpm2.TPM2BIDObject{Buffer: blob}),
		Secret: tpm2.Marshal(tpm2.TPM2BEncryptedSecret{Buffer: wrapped}),
	}, secret, nil
}

// ekTemplate is the public area of an endorsement key as far as it matters for a
// credential: its key, its name's hash and its cipher. A certificate has only the
// key; the rest is as the "EK Credential Profile", annex B, has it for a key of
// this kind (L-1, L-2 and H-1 to H-7 agree on it).
func ekTemplate(key crypto.PublicKey) (*tpm2.TPMTPublic, error) {
	bits, unique, parameters, err := ekParameters(key)
	if err != nil {
		return nil, err
	}
	suite, ok := ekSuites[bits]
	if !ok {
		return nil, fmt.Errorf("%w: an endorsement key of %d bits", ErrRequest, bits)
	}
	symmetric := tpm2.TPMTSymDefObject{
		Algorithm: tpm2.TPMAlgAES,
		KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, tpm2.TPMKeyBits(suite.aes)),
		Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
	}
	pub := parameters(symmetric)
	pub.NameAlg, pub.Unique = suite.hash, unique
	return pub, nil
}

// ekSuites go by the bits of an RSA modulus or a curve, which don't overlap.
var ekSuites = map[int]struct {
	hash tpm2.TPMAlgID
	aes  int
}{
	2048: {tpm2.TPMAlgSHA256, 128}, 3072: {tpm2.TPMAlgSHA384, 256}, 4096: {tpm2.TPMAlgSHA512, 256},
	256: {tpm2.TPMAlgSHA256, 128}, 384: {tpm2.TPMAlgSHA384, 256}, 521: {tpm2.TPMAlgSHA512, 256},
}

var eccCurves = map[int]tpm2.TPMECCCurve{256: tpm2.TPMECCNistP256, 384: tpm2.TPMECCNistP384, 521: tpm2.TPMECCNistP521}

func ekParameters(key crypto.PublicKey) (int, tpm2.TPMUPublicID, func(tpm2.TPMTSymDefObject) *tpm2.TPMTPublic, error) {
	switch key := key.(type) {
	case *rsa.PublicKey:
		if key.E != 65537 {
			break
		}
		bits := key.N.BitLen()
		return bits, tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: key.N.Bytes()}),
			func(s tpm2.TPMTSymDefObject) *tpm2.TPMTPublic {
				return &tpm2.TPMTPublic{Type: tpm2.TPMAlgRSA, Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA,
					&tpm2.TPMSRSAParms{Symmetric: s, KeyBits: tpm2.TPMKeyBits(bits)})}
			}, nil
	case *ecdsa.PublicKey:
		point, err := key.Bytes()
		if err != nil {
			break
		}
		bits, half := curves[key.Curve], len(point)/2 // after the 4 that says uncompressed
		return bits, tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
				X: tpm2.TPM2BECCParameter{Buffer: point[1 : 1+half]}, Y: tpm2.TPM2BECCParameter{Buffer: point[1+half:]},
			}), func(s tpm2.TPMTSymDefObject) *tpm2.TPMTPublic {
				return &tpm2.TPMTPublic{Type: tpm2.TPMAlgECC, Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC,
					&tpm2.TPMSECCParms{Symmetric: s, CurveID: eccCurves[bits]})}
			}, nil
	}
	return 0, tpm2.TPMUPublicID{}, nil, fmt.Errorf("%w: an endorsement key of another kind than any profile's", ErrRequest)
}
