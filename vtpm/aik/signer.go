// SPDX-License-Identifier: Apache-2.0

package aik

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"

	"github.com/google/go-tpm/tpm2"
)

// MaxMessage is the most bytes that the key signs at once.
const MaxMessage = 64 << 10

// Signer signs with the key what is no structure of a TPM: certificates. It is a
// crypto.MessageSigner, as x509.CreateCertificate wants it, since a restricted key
// signs only what its TPM has hashed itself. Signatures are over SHA-256: ECDSA in
// ASN.1, or RSA PKCS #1 v1.5.
func (h *Host) Signer() crypto.Signer { return signer{h} }

type signer struct{ host *Host }

var _ crypto.MessageSigner = signer{}

// Public implements crypto.Signer.
func (s signer) Public() crypto.PublicKey { return s.host.Public() }

// Sign implements crypto.Signer, in that it refuses.
func (s signer) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("aik: a restricted key signs no digest that was made outside of its TPM: use SignMessage")
}

// SignMessage implements crypto.MessageSigner.
func (s signer) SignMessage(_ io.Reader, msg []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts != nil && opts.HashFunc() != crypto.SHA256 {
		return nil, fmt.Errorf("aik: the key signs with SHA-256 only, not %v", opts.HashFunc())
	}
	if _, pss := opts.(*rsa.PSSOptions); pss {
		return nil, errors.New("aik: the key signs by PKCS #1 v1.5, not PSS")
	}
	if len(msg) > MaxMessage {
		return nil, fmt.Errorf("aik: a message of %d bytes, more than %d", len(msg), MaxMessage)
	}
	if generated(msg) {
		return nil, fmt.Errorf("aik: %w", ErrForged)
	}
	var sig []byte
	err := s.host.do(context.Background(), func(t *lane) (err error) {
		sig, err = s.host.sign(t, msg)
		return err
	})
	return sig, err
}

func (h *Host) sign(t *lane, msg []byte) ([]byte, error) {
	digest, ticket, err := h.hash(t, msg)
	if err != nil {
		return nil, err
	}
	key, err := h.load(t)
	if err != nil {
		return nil, err
	}
	rsp, err := tpm2.Sign{
		KeyHandle: key, Digest: tpm2.TPM2BDigest{Buffer: digest}, Validation: ticket,
		InScheme: tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
	}.Execute(t)
	if err != nil {
		return nil, tpmError("sign", err)
	}
	return h.key.verify(msg, &rsp.Signature)
}

// verify checks a signature of the key and gives it as crypto/x509 has it: a TPM
// with a fault, or somebody on the bus, must not make us issue what nobody believes.
func (k *key) verify(msg []byte, sig *tpm2.TPMTSignature) ([]byte, error) {
	digest := sha256.Sum256(msg)
	switch pub := k.crypto.(type) {
	case *ecdsa.PublicKey:
		s, err := sig.Signature.ECDSA()
		if err != nil {
			return nil, fmt.Errorf("%w: signature: %w", ErrTPM, err)
		}
		der, err := asn1.Marshal(struct{ R, S *big.Int }{
			new(big.Int).SetBytes(s.SignatureR.Buffer), new(big.Int).SetBytes(s.SignatureS.Buffer)})
		if err != nil || s.Hash != hashAlg || !ecdsa.VerifyASN1(pub, digest[:], der) {
			return nil, fmt.Errorf("%w: its signature is not of the key", ErrTPM)
		}
		return der, nil
	case *rsa.PublicKey:
		s, err := sig.Signature.RSASSA()
		if err != nil {
			return nil, fmt.Errorf("%w: signature: %w", ErrTPM, err)
		}
		if err := rsa.VerifyPKCS1v15(pub, crypto.SHA256, digest[:], s.Sig.Buffer); err != nil || s.Hash != hashAlg {
			return nil, fmt.Errorf("%w: its signature is not of the key", ErrTPM)
		}
		return s.Sig.Buffer, nil
	}
	return nil, fmt.Errorf("%w: key of type %T", ErrTPM, k.crypto)
}
