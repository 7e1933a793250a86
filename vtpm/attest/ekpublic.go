// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/binary"
	"errors"

	"github.com/google/go-tpm/tpm2"
)

// Bits of TPMA_OBJECT (TCG Part 2, "TPMA_OBJECT").
const (
	fixedTPM            = 1 << 1
	fixedParent         = 1 << 4
	sensitiveDataOrigin = 1 << 5
	restricted          = 1 << 16
	decrypts            = 1 << 17
	signs               = 1 << 18

	ekHas = fixedTPM | fixedParent | sensitiveDataOrigin | restricted | decrypts
)

// ekName gives the Name of a public area, which is an endorsement key's and has this
// key (TCG Part 2, "TPMT_PUBLIC", "TPMS_RSA_PARMS", "TPMS_ECC_PARMS"):
//
//	0  type              u16, TPM_ALG_RSA or TPM_ALG_ECC
//	2  nameAlg           u16
//	4  objectAttributes  u32
//	8  authPolicy        u16 size, digest
//	   symmetric         u16 TPM_ALG_AES, u16 bits, u16 TPM_ALG_CFB
//	   scheme            u16, TPM_ALG_NULL, as of all keys that are restricted and decrypt
//	   RSA               u16 bits, u32 exponent (0 is 65537); u16 size, modulus
//	   ECC               u16 curve, u16 TPM_ALG_NULL for the kdf; u16 size, x; u16 size, y
func ekName(public []byte, key crypto.PublicKey) ([]byte, error) {
	w := &wire{rest: public}
	kind, alg, attributes := tpm2.TPMAlgID(w.u16()), w.u16(), w.u32()
	w.sized(maxDigest)
	cipher, size, mode, scheme := tpm2.TPMAlgID(w.u16()), w.u16(), tpm2.TPMAlgID(w.u16()), tpm2.TPMAlgID(w.u16())
	var same bool
	switch key := key.(type) {
	case *rsa.PublicKey:
		same = kind == tpm2.TPMAlgRSA && sameRSA(w, key)
	case *ecdsa.PublicKey:
		same = kind == tpm2.TPMAlgECC && sameECC(w, key)
	}
	hash := bankOf(tpm2.TPMAlgID(alg))
	switch {
	case !same && !w.broken:
		return nil, errors.New("its certificate is for another key")
	case !w.whole():
		return nil, errors.New("its public area is not whole, or something stands behind its end")
	case attributes&ekHas != ekHas || attributes&signs != 0:
		return nil, errors.New("its attributes are not an endorsement key's: restricted, decrypt, fixedTPM, fixedParent, sensitiveDataOrigin")
	case cipher != tpm2.TPMAlgAES || size != 128 && size != 256 || mode != tpm2.TPMAlgCFB || scheme != tpm2.TPMAlgNull || hash == nil || !hash.strong():
		return nil, errors.New("its algorithms are not an endorsement key's")
	}
	h := hash.hash.New()
	h.Write(public)
	return h.Sum(binary.BigEndian.AppendUint16(nil, alg)), nil
}

// sameRSA reads what a public area has of an RSA key, and compares.
func sameRSA(w *wire, key *rsa.PublicKey) bool {
	bits, exponent := int(w.u16()), int(w.u32())
	if exponent == 0 {
		exponent = 65537
	}
	return bytes.Equal(w.sized(maxStruct), key.N.Bytes()) && bits == key.N.BitLen() && exponent == key.E
}

// tpmCurves are the curves that endorsement keys are on: TCG Part 2, "TPM_ECC_CURVE".
var tpmCurves = map[elliptic.Curve]tpm2.TPMECCCurve{
	elliptic.P256(): tpm2.TPMECCNistP256, elliptic.P384(): tpm2.TPMECCNistP384, elliptic.P521(): tpm2.TPMECCNistP521,
}

// sameECC reads what a public area has of a key on a curve, and compares.
func sameECC(w *wire, key *ecdsa.PublicKey) bool {
	curve, kdf := tpm2.TPMECCCurve(w.u16()), w.u16()
	point, err := key.Bytes() // 4, x, y
	if err != nil {
		return false
	}
	half := len(point) / 2
	x, y := w.sized(half), w.sized(half)
	return curve == tpmCurves[key.Curve] && kdf == uint16(tpm2.TPMAlgNull) &&
		bytes.Equal(x, point[1:1+half]) && bytes.Equal(y, point[1+half:])
}
