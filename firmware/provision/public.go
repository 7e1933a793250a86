// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"math/big"
)

// ErrPublic is the cause of ParseEK's error.
var ErrPublic = errors.New("not the public area of an endorsement key")

// attributes that an endorsement key has, and one that it must not have.
const (
	ekAttributes = storage
	sign         = 1 << 18
)

// ParseEK reads a TPMT_PUBLIC (Part 2, 12.2.4) of an endorsement key: a storage
// key that never leaves its TPM, RSA-2048, P-256 or P-384. It gives the public key
// and the TPM Name. What else is in front of it is an error: b may be anybody's.
func ParseEK(b []byte) (key crypto.PublicKey, name []byte, err error) {
	r := reader{b: b}
	alg, nameAlg, attributes := r.u16(), r.u16(), r.u32()
	r.sized()         // policy
	r.take(2 + 2 + 2) // AES, bits, mode
	scheme := r.u16() // of the key
	if r.short || scheme != algNull || attributes&(ekAttributes|sign) != ekAttributes {
		return nil, nil, fmt.Errorf("attributes %#x, scheme %#x: %w", attributes, scheme, ErrPublic)
	}
	if name = nameOf(nameAlg, b); name == nil {
		return nil, nil, fmt.Errorf("name algorithm %#x: %w", nameAlg, ErrPublic)
	}
	switch alg {
	case algRSA:
		key, err = r.rsa()
	case algECC:
		key, err = r.ecc()
	default:
		err = fmt.Errorf("algorithm %#x: %w", alg, ErrPublic)
	}
	if err == nil && (r.short || len(r.b) != 0) {
		err = fmt.Errorf("%d bytes: %w", len(b), ErrPublic)
	}
	if err != nil {
		return nil, nil, err
	}
	return key, name, nil
}

// nameOf is the TPM Name of an object (Part 1, "Names"): the algorithm, and the
// digest of the public area.
func nameOf(alg uint16, public []byte) []byte {
	name := be.AppendUint16(nil, alg)
	switch alg {
	case algSHA256:
		d := sha256.Sum256(public)
		return append(name, d[:]...)
	case algSHA384:
		d := sha512.Sum384(public)
		return append(name, d[:]...)
	}
	return nil
}

// rsa reads bits, exponent and modulus (TPMS_RSA_PARMS, TPM2B_PUBLIC_KEY_RSA).
func (r *reader) rsa() (crypto.PublicKey, error) {
	const bits = 2048
	size, exponent := r.u16(), r.u32()
	n := new(big.Int).SetBytes(r.sized())
	if size != bits || exponent != 0 || n.BitLen() != bits {
		return nil, fmt.Errorf("RSA key of %d bits: %w", n.BitLen(), ErrPublic)
	}
	return &rsa.PublicKey{N: n, E: 0x10001}, nil
}

// ecc reads curve, key derivation scheme and point (TPMS_ECC_PARMS,
// TPMS_ECC_POINT).
func (r *reader) ecc() (crypto.PublicKey, error) {
	var curve elliptic.Curve
	switch id := r.u16(); id {
	case curveP256:
		curve = elliptic.P256()
	case curveP384:
		curve = elliptic.P384()
	default:
		return nil, fmt.Errorf("curve %#x: %w", id, ErrPublic)
	}
	kdf := r.u16()
	size := (curve.Params().BitSize + 7) / 8
	point := []byte{4} // uncompressed (SEC 1, 2.3.3)
	for _, c := range [][]byte{r.sized(), r.sized()} {
		if len(c) > size {
			return nil, fmt.Errorf("coordinate of %d bytes: %w", len(c), ErrPublic)
		}
		point = append(append(point, make([]byte, size-len(c))...), c...)
	}
	key, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil || kdf != algNull {
		return nil, fmt.Errorf("point: %w: %w", ErrPublic, err)
	}
	return key, nil
}
