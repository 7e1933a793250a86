// SPDX-License-Identifier: Apache-2.0

package controltest

import (
	"crypto"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// TPM is a TPM with what tests ask of it. One goroutine uses it.
type TPM struct {
	t testing.TB
	transport.TPM
}

// Send implements go-tpm's transport. A TPM may ask to be asked again, as it does
// when it has to write down first that a secret is tried (Part 2, TPM_RC_RETRY).
func (p *TPM) Send(cmd []byte) ([]byte, error) {
	const attempts = 5
	for n := 1; ; n++ {
		resp, err := p.TPM.Send(cmd)
		if err != nil || n == attempts || len(resp) < 10 || tpm2.TPMRC(binary.BigEndian.Uint32(resp[6:])) != tpm2.TPMRCRetry {
			return resp, err
		}
	}
}

// Key is a key that is loaded in a TPM.
type Key struct {
	Handle tpm2.TPMHandle
	Name   tpm2.TPM2BName
	Public tpm2.TPMTPublic
	Crypto crypto.PublicKey

	password bool // authorized by an empty password, not by policy
}

// TPMT is the key's public area as a TPMT_PUBLIC.
func (k *Key) TPMT() []byte { return tpm2.Marshal(&k.Public) }

// TPM2B is the key's public area as a TPM2B_PUBLIC.
func (k *Key) TPM2B() []byte { return tpm2.Marshal(tpm2.New2B(k.Public)) }

func (p *TPM) fatal(what string, err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatalf("%s: %v", what, err)
	}
}

// Primary makes a primary key; it stays loaded until Flush.
func (p *TPM) Primary(hierarchy tpm2.TPMHandle, template tpm2.TPMTPublic) *Key {
	p.t.Helper()
	r, err := tpm2.CreatePrimary{PrimaryHandle: hierarchy, InPublic: tpm2.New2B(template)}.Execute(p)
	p.fatal("CreatePrimary", err)
	pub, err := r.OutPublic.Contents()
	p.fatal("public area", err)
	return p.key(r.ObjectHandle, r.Name, pub)
}

func (p *TPM) key(handle tpm2.TPMHandle, name tpm2.TPM2BName, pub *tpm2.TPMTPublic) *Key {
	p.t.Helper()
	key, err := tpm2.Pub(*pub)
	p.fatal("public key", err)
	return &Key{Handle: handle, Name: name, Public: *pub, Crypto: key, password: pub.ObjectAttributes.UserWithAuth}
}

// EK makes an endorsement key.
func (p *TPM) EK(template tpm2.TPMTPublic) *Key {
	p.t.Helper()
	return p.Primary(tpm2.TPMRHEndorsement, template)
}

// Persistent gives a key that a TPM keeps.
func (p *TPM) Persistent(handle tpm2.TPMHandle) *Key {
	p.t.Helper()
	r, err := tpm2.ReadPublic{ObjectHandle: handle}.Execute(p)
	p.fatal("ReadPublic", err)
	pub, err := r.OutPublic.Contents()
	p.fatal("public area", err)
	return p.key(handle, r.Name, pub)
}

// AK makes a fresh attestation key, from AKTemplate after change, which may be nil.
func (p *TPM) AK(change func(*tpm2.TPMTPublic)) *Key {
	p.t.Helper()
	template := AKTemplate()
	if change != nil {
		change(&template)
	}
	if u, err := template.Unique.ECC(); err == nil {
		u.X.Buffer = make([]byte, 32)
		rand.Read(u.X.Buffer)
	}
	return p.Primary(tpm2.TPMRHOwner, template)
}

// AKTemplate is a restricted ECDSA P-256 signing key.
func AKTemplate() tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, Restricted: true, SignEncrypt: true},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Scheme:  tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256})},
			CurveID: tpm2.TPMECCNistP256,
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{}),
	}
}

// EKP384Template is an EK like the profile's H-3, for a password.
func EKP384Template() tpm2.TPMTPublic {
	t := tpm2.ECCEKTemplate
	t.NameAlg, t.AuthPolicy = tpm2.TPMAlgSHA384, tpm2.TPM2BDigest{}
	t.ObjectAttributes.UserWithAuth, t.ObjectAttributes.AdminWithPolicy = true, false
	t.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		CurveID: tpm2.TPMECCNistP384,
		Symmetric: tpm2.TPMTSymDefObject{
			Algorithm: tpm2.TPMAlgAES,
			KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, tpm2.TPMKeyBits(256)),
			Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
		},
	})
	t.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
	return t
}

// Flush drops a key that Primary made.
func (p *TPM) Flush(k *Key) {
	p.t.Helper()
	_, err := tpm2.FlushContext{FlushHandle: k.Handle}.Execute(p)
	p.fatal("FlushContext", err)
}

// LoadPublic loads only the public half of a key from elsewhere.
func (p *TPM) LoadPublic(k *Key) *Key {
	p.t.Helper()
	r, err := tpm2.LoadExternal{InPublic: tpm2.New2B(k.Public), Hierarchy: tpm2.TPMRHOwner}.Execute(p)
	p.fatal("LoadExternal", err)
	return p.key(r.ObjectHandle, r.Name, &k.Public)
}

// Activate opens a credential, given with sizes in front, as the server does.
func (p *TPM) Activate(ek, ak *Key, blob, secret []byte) ([]byte, error) {
	b, err := tpm2.Unmarshal[tpm2.TPM2BIDObject](blob)
	if err != nil {
		return nil, err
	}
	s, err := tpm2.Unmarshal[tpm2.TPM2BEncryptedSecret](secret)
	if err != nil {
		return nil, err
	}
	auth := tpm2.Policy(tpm2.TPMAlgSHA256, 16, ekPolicy)
	if ek.password {
		auth = tpm2.PasswordAuth(nil)
	}
	r, err := tpm2.ActivateCredential{
		ActivateHandle: tpm2.AuthHandle{Handle: ak.Handle, Name: ak.Name, Auth: tpm2.PasswordAuth(nil)},
		KeyHandle:      tpm2.AuthHandle{Handle: ek.Handle, Name: ek.Name, Auth: auth},
		CredentialBlob: *b, Secret: *s,
	}.Execute(p)
	if err != nil {
		return nil, err
	}
	return r.CertInfo.Buffer, nil
}

// ekPolicy is PolicyA of the EK credential profile.
func ekPolicy(t transport.TPM, session tpm2.TPMISHPolicy, nonce tpm2.TPM2BNonce) error {
	_, err := tpm2.PolicySecret{
		AuthHandle:    tpm2.AuthHandle{Handle: tpm2.TPMRHEndorsement, Auth: tpm2.PasswordAuth(nil)},
		PolicySession: session, NonceTPM: nonce,
	}.Execute(t)
	return err
}

// Signer signs certificates with a restricted key: the TPM hashes what is signed
// and vouches that it doesn't look like its own structures.
func (p *TPM) Signer(ak *Key) crypto.Signer { return signer{p, ak} }

type signer struct {
	tpm *TPM
	key *Key
}

var _ crypto.MessageSigner = signer{}

func (s signer) Public() crypto.PublicKey { return s.key.Crypto }

func (s signer) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("a restricted key signs no digest from outside")
}

func (s signer) SignMessage(_ io.Reader, message []byte, _ crypto.SignerOpts) ([]byte, error) {
	h, err := tpm2.Hash{Data: tpm2.TPM2BMaxBuffer{Buffer: message}, HashAlg: tpm2.TPMAlgSHA256, Hierarchy: tpm2.TPMRHOwner}.Execute(s.tpm)
	if err != nil {
		return nil, err
	}
	r, err := tpm2.Sign{
		KeyHandle: tpm2.AuthHandle{Handle: s.key.Handle, Name: s.key.Name, Auth: tpm2.PasswordAuth(nil)},
		Digest:    h.OutHash, Validation: h.Validation,
		InScheme: tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
	}.Execute(s.tpm)
	if err != nil {
		return nil, err
	}
	sig, err := r.Signature.Signature.ECDSA()
	if err != nil {
		return nil, err
	}
	return encodeECDSA(sig.SignatureR.Buffer, sig.SignatureS.Buffer)
}
