// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// AK is the public area of an attestation key that is fit to be one. That it
// lives in a TPM is not proven by it.
type AK struct {
	Public []byte           // TPMT_PUBLIC
	Name   []byte           // nameAlg || digest of Public
	Key    crypto.PublicKey // *rsa.PublicKey or *ecdsa.PublicKey
	SPKI   []byte           // Key as SubjectPublicKeyInfo
}

// NameText is the Name in hexadecimal.
func (a *AK) NameText() string { return hex.EncodeToString(a.Name) }

const maxPublic = 2048 // bytes of a public area; RSA-4096 has about 540

// ParseAK reads a TPM2B_PUBLIC, or a TPMT_PUBLIC as go-attestation gives it, and
// checks that such a key signs nothing but what its TPM made (Part 1, "Restricted
// attribute"), and can never leave it.
func ParseAK(b []byte) (*AK, error) {
	if len(b) > maxPublic {
		return nil, fmt.Errorf("%w: a public area of %d bytes", ErrRequest, len(b))
	}
	// No TPMT_PUBLIC of a key is as short as its own type would say as a size.
	if len(b) >= 2 && int(binary.BigEndian.Uint16(b)) == len(b)-2 {
		b = b[2:]
	}
	pub, err := tpm2.Unmarshal[tpm2.TPMTPublic](b)
	if err != nil {
		return nil, fmt.Errorf("%w: public area of the AK: %w", ErrRequest, err)
	}
	// One encoding for each key: the Name is over these bytes.
	if !bytes.Equal(tpm2.Marshal(pub), b) {
		return nil, fmt.Errorf("%w: public area of the AK has something after its end", ErrRequest)
	}
	if err := checkAK(pub); err != nil {
		return nil, fmt.Errorf("%w: the AK %w", ErrRequest, err)
	}
	name, err := tpm2.ObjectName(pub)
	if err != nil {
		return nil, fmt.Errorf("%w: name of the AK: %w", ErrRequest, err)
	}
	key, err := tpm2.Pub(*pub)
	if err != nil {
		return nil, fmt.Errorf("%w: the AK's key: %w", ErrRequest, err)
	}
	if ec, ok := key.(*ecdsa.PublicKey); ok {
		if _, err := ec.ECDH(); err != nil {
			return nil, fmt.Errorf("%w: the AK's point: %w", ErrRequest, err)
		}
	}
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("%w: the AK's key: %w", ErrRequest, err)
	}
	return &AK{Public: bytes.Clone(b), Name: name.Buffer, Key: key, SPKI: spki}, nil
}

func checkAK(pub *tpm2.TPMTPublic) error {
	a := pub.ObjectAttributes
	for _, must := range []struct {
		name string
		has  bool
	}{
		{"restricted", a.Restricted}, {"fixedTPM", a.FixedTPM}, {"fixedParent", a.FixedParent},
		{"sensitiveDataOrigin", a.SensitiveDataOrigin}, {"sign", a.SignEncrypt},
	} {
		if !must.has {
			return fmt.Errorf("is not %s", must.name)
		}
	}
	switch {
	case a.Decrypt:
		return fmt.Errorf("decrypts")
	case a.EncryptedDuplication:
		return fmt.Errorf("is made to be duplicated")
	case a.X509Sign:
		return fmt.Errorf("signs only certificates")
	case !goodHash(pub.NameAlg):
		return fmt.Errorf("has a name by algorithm %#x", uint16(pub.NameAlg))
	}
	switch pub.Type {
	case tpm2.TPMAlgRSA:
		return checkRSA(pub)
	case tpm2.TPMAlgECC:
		return checkECC(pub)
	}
	return fmt.Errorf("is of type %#x", uint16(pub.Type))
}

func goodHash(alg tpm2.TPMAlgID) bool {
	return alg == tpm2.TPMAlgSHA256 || alg == tpm2.TPMAlgSHA384 || alg == tpm2.TPMAlgSHA512
}

func checkRSA(pub *tpm2.TPMTPublic) error {
	p, err := pub.Parameters.RSADetail()
	if err != nil {
		return err
	}
	n, err := pub.Unique.RSA()
	if err != nil {
		return err
	}
	hash := tpm2.TPMAlgNull
	switch p.Scheme.Scheme {
	case tpm2.TPMAlgRSASSA:
		if s, err := p.Scheme.Details.RSASSA(); err == nil {
			hash = s.HashAlg
		}
	case tpm2.TPMAlgRSAPSS:
		if s, err := p.Scheme.Details.RSAPSS(); err == nil {
			hash = s.HashAlg
		}
	}
	switch {
	case !goodHash(hash):
		return fmt.Errorf("signs by scheme %#x with hash %#x", uint16(p.Scheme.Scheme), uint16(hash))
	case p.KeyBits < 2048 || p.KeyBits > 4096 || len(n.Buffer)*8 != int(p.KeyBits) || n.Buffer[0]&0x80 == 0 || n.Buffer[len(n.Buffer)-1]&1 == 0:
		return fmt.Errorf("has an unfit modulus for %d bits", p.KeyBits)
	case p.Exponent != 0 && p.Exponent != 65537:
		return fmt.Errorf("has the exponent %d", p.Exponent)
	}
	return nil
}

func checkECC(pub *tpm2.TPMTPublic) error {
	p, err := pub.Parameters.ECCDetail()
	if err != nil {
		return err
	}
	hash := tpm2.TPMAlgNull
	if p.Scheme.Scheme == tpm2.TPMAlgECDSA {
		if s, err := p.Scheme.Details.ECDSA(); err == nil {
			hash = s.HashAlg
		}
	}
	switch {
	case !goodHash(hash):
		return fmt.Errorf("signs by scheme %#x with hash %#x", uint16(p.Scheme.Scheme), uint16(hash))
	case p.CurveID != tpm2.TPMECCNistP256 && p.CurveID != tpm2.TPMECCNistP384 && p.CurveID != tpm2.TPMECCNistP521:
		return fmt.Errorf("is on curve %#x", uint16(p.CurveID))
	}
	return nil
}
