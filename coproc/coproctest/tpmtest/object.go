// SPDX-License-Identifier: Apache-2.0

package tpmtest

import (
	"errors"

	"github.com/google/go-tpm/tpm2"
)

// Object is a loaded object.
type Object struct {
	Handle tpm2.TPMHandle
	Name   tpm2.TPM2BName
}

// CreateSRK makes and loads the P-256 storage key.
func (p *TPM) CreateSRK() Object {
	p.t.Helper()
	r, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.TPMRHOwner,
		InPublic:      tpm2.New2B(tpm2.ECCSRKTemplate),
	}.Execute(p)
	p.ok("CreatePrimary", err)
	return Object{Handle: r.ObjectHandle, Name: r.Name}
}

// Swap does what a resource manager does around a command: it saves the
// object's context, flushes it, and loads it again.
func (p *TPM) Swap(o Object) Object {
	p.t.Helper()
	c, err := tpm2.ContextSave{SaveHandle: o.Handle}.Execute(p)
	p.ok("ContextSave", err)
	p.Flush(o)
	l, err := tpm2.ContextLoad{Context: c.Context}.Execute(p)
	p.ok("ContextLoad", err)
	return Object{Handle: l.LoadedHandle, Name: o.Name}
}

// Flush unloads an object.
func (p *TPM) Flush(o Object) {
	p.t.Helper()
	_, err := tpm2.FlushContext{FlushHandle: o.Handle}.Execute(p)
	p.ok("FlushContext", err)
}

// CreateSigner makes and loads a P-256 signing key.
func (p *TPM) CreateSigner() Object {
	p.t.Helper()
	r, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.TPMRHOwner,
		InPublic: tpm2.New2B(tpm2.TPMTPublic{
			Type:    tpm2.TPMAlgECC,
			NameAlg: tpm2.TPMAlgSHA256,
			ObjectAttributes: tpm2.TPMAObject{
				FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true,
				UserWithAuth: true, SignEncrypt: true, NoDA: true,
			},
			Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
				CurveID: tpm2.TPMECCNistP256,
				Scheme: tpm2.TPMTECCScheme{
					Scheme:  tpm2.TPMAlgECDSA,
					Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
				},
			}),
		}),
	}.Execute(p)
	p.ok("CreatePrimary", err)
	return Object{Handle: r.ObjectHandle, Name: r.Name}
}

// Sign signs a digest.
func (p *TPM) Sign(key Object, d Digest) {
	p.t.Helper()
	_, err := tpm2.Sign{
		KeyHandle:  tpm2.NamedHandle{Handle: key.Handle, Name: key.Name},
		Digest:     tpm2.TPM2BDigest{Buffer: d[:]},
		Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck},
	}.Execute(p)
	p.ok("Sign", err)
}

// Loaded tells whether the object is still there under its handle.
func (p *TPM) Loaded(o Object) bool {
	r, err := tpm2.ReadPublic{ObjectHandle: o.Handle}.Execute(p)
	return err == nil && string(r.Name.Buffer) == string(o.Name.Buffer)
}

// RSAKeyCommand is TPM2_Create of an RSA key under parent, which takes long.
func RSAKeyCommand(parent Object, bits int) tpm2.Create {
	return tpm2.Create{
		ParentHandle: tpm2.AuthHandle{Handle: parent.Handle, Name: parent.Name, Auth: tpm2.PasswordAuth(nil)},
		InPublic: tpm2.New2B(tpm2.TPMTPublic{
			Type:    tpm2.TPMAlgRSA,
			NameAlg: tpm2.TPMAlgSHA256,
			ObjectAttributes: tpm2.TPMAObject{
				FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true,
				UserWithAuth: true, SignEncrypt: true, NoDA: true,
			},
			Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{KeyBits: tpm2.TPMKeyBits(bits)}),
		}),
	}
}

// SealWithPassword makes and loads an object that a password unseals, and
// that counts wrong ones.
func (p *TPM) SealWithPassword(parent Object, data, password string) Object {
	p.t.Helper()
	auth := tpm2.AuthHandle{Handle: parent.Handle, Name: parent.Name, Auth: tpm2.PasswordAuth(nil)}
	c, err := tpm2.Create{
		ParentHandle: auth,
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
			UserAuth: tpm2.TPM2BAuth{Buffer: []byte(password)},
			Data:     tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: []byte(data)}),
		}},
		InPublic: tpm2.New2B(tpm2.TPMTPublic{
			Type:             tpm2.TPMAlgKeyedHash,
			NameAlg:          tpm2.TPMAlgSHA256,
			ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, UserWithAuth: true},
		}),
	}.Execute(p)
	p.ok("Create", err)
	l, err := tpm2.Load{ParentHandle: auth, InPrivate: c.OutPrivate, InPublic: c.OutPublic}.Execute(p)
	p.ok("Load", err)
	return Object{Handle: l.ObjectHandle, Name: l.Name}
}

// Unseal unseals an object with a password.
func (p *TPM) Unseal(o Object, password string) (string, error) {
	cmd := tpm2.Unseal{ItemHandle: tpm2.AuthHandle{
		Handle: o.Handle, Name: o.Name, Auth: tpm2.PasswordAuth([]byte(password)),
	}}
	r, err := cmd.Execute(p)
	if errors.Is(err, tpm2.TPMRCRetry) {
		// The first use of a password after a start is noted in NV, and
		// the TPM asks for the command again.
		r, err = cmd.Execute(p)
	}
	if err != nil {
		return "", err
	}
	return string(r.OutData.Buffer), nil
}

// Policy is an open policy session.
type Policy struct{ handle tpm2.TPMHandle }

// StartPolicy opens a policy session.
func (p *TPM) StartPolicy() Policy {
	p.t.Helper()
	s, _, err := tpm2.PolicySession(p, tpm2.TPMAlgSHA256, 16)
	p.ok("StartAuthSession", err)
	return Policy{handle: s.Handle()}
}

// Require adds "command code" to the policy, which changes its digest.
func (p *TPM) Require(s Policy, code tpm2.TPMCC) {
	p.t.Helper()
	_, err := tpm2.PolicyCommandCode{PolicySession: s.handle, Code: code}.Execute(p)
	p.ok("PolicyCommandCode", err)
}

// PolicyDigest reads the session's digest; ok is false if there is no such
// session.
func (p *TPM) PolicyDigest(s Policy) (d Digest, ok bool) {
	r, err := tpm2.PolicyGetDigest{PolicySession: s.handle}.Execute(p)
	if err != nil {
		return d, false
	}
	return Digest(r.PolicyDigest.Buffer), true
}

// HMACSession opens an HMAC session which rolls its nonces with every use,
// and so breaks if a use is lost or done twice.
func (p *TPM) HMACSession() tpm2.Session {
	p.t.Helper()
	s, _, err := tpm2.HMACSession(p, tpm2.TPMAlgSHA256, 16)
	p.ok("StartAuthSession", err)
	return s
}

// UseSession runs a command under an HMAC session.
func (p *TPM) UseSession(s tpm2.Session, parent Object) error {
	_, err := tpm2.Create{
		ParentHandle: tpm2.AuthHandle{Handle: parent.Handle, Name: parent.Name, Auth: s},
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
			Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: []byte("x")}),
		}},
		InPublic: tpm2.New2B(tpm2.TPMTPublic{
			Type:             tpm2.TPMAlgKeyedHash,
			NameAlg:          tpm2.TPMAlgSHA256,
			ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, UserWithAuth: true},
		}),
	}.Execute(p)
	return err
}
