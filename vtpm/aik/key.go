// SPDX-License-Identifier: Apache-2.0

package aik

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// key is an attestation key outside of the TPM.
type key struct {
	parent  []byte // name of the storage key
	public  tpm2.TPM2BPublic
	private tpm2.TPM2BPrivate

	// What follows from public.
	name   tpm2.TPM2BName
	area   *tpm2.TPMTPublic
	crypto crypto.PublicKey
}

// newKey checks that a public area is of such a key as Open makes.
func newKey(parent []byte, public tpm2.TPM2BPublic, private tpm2.TPM2BPrivate) (*key, error) {
	area, err := public.Contents()
	if err != nil {
		return nil, err
	}
	if area.ObjectAttributes != attributes {
		return nil, errors.New("it is no attestation key")
	}
	name, err := tpm2.ObjectName(area)
	if err != nil {
		return nil, err
	}
	pub, err := tpm2.Pub(*area)
	if err != nil {
		return nil, err
	}
	return &key{parent: parent, public: public, private: private, name: *name, area: area, crypto: pub}, nil
}

// attributes of the key. Restricted: it signs what the TPM made itself, or hashed
// itself and found to look like nothing that it makes. NoDA: somebody else's wrong
// passwords do not stop it.
var attributes = tpm2.TPMAObject{
	FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true,
	NoDA: true, Restricted: true, SignEncrypt: true,
}

const hashAlg = tpm2.TPMAlgSHA256

func template(k KeyType) tpm2.TPMTPublic {
	t := tpm2.TPMTPublic{NameAlg: tpm2.TPMAlgSHA256, ObjectAttributes: attributes}
	if k == RSA2048 {
		t.Type = tpm2.TPMAlgRSA
		t.Parameters = tpm2.NewTPMUPublicParms(t.Type, &tpm2.TPMSRSAParms{
			Scheme: tpm2.TPMTRSAScheme{Scheme: tpm2.TPMAlgRSASSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSigSchemeRSASSA{HashAlg: hashAlg})},
			KeyBits: 2048,
		})
		return t
	}
	t.Type = tpm2.TPMAlgECC
	t.Parameters = tpm2.NewTPMUPublicParms(t.Type, &tpm2.TPMSECCParms{
		Scheme: tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA,
			Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: hashAlg})},
		CurveID: tpm2.TPMECCNistP256,
	})
	return t
}

// authorize authorizes a hierarchy's use, until done is called. A value that is not
// empty does not cross the bus.
func authorize(t *lane, hierarchy tpm2.TPMHandle, auth []byte) (h tpm2.AuthHandle, done func(), err error) {
	h = tpm2.AuthHandle{Handle: hierarchy, Auth: tpm2.PasswordAuth(nil)}
	if len(auth) == 0 {
		return h, func() {}, nil
	}
	s, _, err := tpm2.HMACSession(t, tpm2.TPMAlgSHA256, nonceSize, tpm2.Auth(auth))
	if err != nil {
		return h, nil, tpmError("start a session", err)
	}
	h.Auth = s
	return h, func() { t.drop(s.Handle()) }, nil
}

const nonceSize = 32

// storageKey makes the primary key that the attestation key is below.
func (h *Host) storageKey(t *lane) (tpm2.AuthHandle, error) {
	owner, done, err := authorize(t, tpm2.TPMRHOwner, h.opts.OwnerAuth)
	if err != nil {
		return owner, err
	}
	defer done()
	rsp, err := tpm2.CreatePrimary{PrimaryHandle: owner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(t)
	if err != nil {
		return owner, tpmError("make the storage key", err)
	}
	return tpm2.AuthHandle{Handle: rsp.ObjectHandle, Name: rsp.Name, Auth: tpm2.PasswordAuth(nil)}, nil
}

// makeKey makes a key and its file.
func (h *Host) makeKey(t *lane) (*key, error) {
	parent, err := h.storageKey(t)
	if err != nil {
		return nil, err
	}
	defer t.drop(parent.Handle)
	rsp, err := tpm2.Create{ParentHandle: parent, InPublic: tpm2.New2B(template(h.opts.Key))}.Execute(t)
	if err != nil {
		return nil, tpmError("make the attestation key", err)
	}
	k, err := newKey(parent.Name.Buffer, rsp.OutPublic, rsp.OutPrivate)
	if err != nil {
		return nil, fmt.Errorf("%w: what it made: %w", ErrTPM, err)
	}
	return k, writeKey(h.dir, k)
}

// load loads the key, from its saved context if that is still good: it ends when
// the TPM is reset.
func (h *Host) load(t *lane) (tpm2.AuthHandle, error) {
	if h.ready != nil {
		rsp, err := tpm2.ContextLoad{Context: *h.ready}.Execute(t)
		if err == nil {
			return h.key.auth(rsp.LoadedHandle), nil
		}
		if _, answered := errors.AsType[tpm2.TPMRC](err); !answered {
			return tpm2.AuthHandle{}, tpmError("load the attestation key's context", err)
		}
		h.ready = nil
	}
	handle, err := h.loadBlobs(t)
	if err != nil {
		return tpm2.AuthHandle{}, err
	}
	rsp, err := tpm2.ContextSave{SaveHandle: handle}.Execute(t)
	if err != nil {
		return tpm2.AuthHandle{}, tpmError("save the attestation key's context", err)
	}
	h.ready = &rsp.Context
	return h.key.auth(handle), nil
}

func (h *Host) loadBlobs(t *lane) (tpm2.TPMHandle, error) {
	parent, err := h.storageKey(t)
	if err != nil {
		return 0, err
	}
	defer t.drop(parent.Handle)
	if !bytes.Equal(parent.Name.Buffer, h.key.parent) {
		return 0, fmt.Errorf("%w: remove %s to have a new one, and enrol again", ErrOtherTPM, keyPath(h.dir))
	}
	rsp, err := tpm2.Load{ParentHandle: parent, InPrivate: h.key.private, InPublic: h.key.public}.Execute(t)
	switch {
	case errors.Is(err, tpm2.TPMRCIntegrity):
		// A TPM that was cleared can have the same storage key in theory only.
		return 0, fmt.Errorf("%w: %s: %w", ErrDamaged, keyPath(h.dir), err)
	case err != nil:
		return 0, tpmError("load the attestation key", err)
	case !bytes.Equal(rsp.Name.Buffer, h.key.name.Buffer):
		return 0, fmt.Errorf("%w: it loaded another key than it was given", ErrTPM)
	}
	return rsp.ObjectHandle, nil
}

// auth is the key under a handle.
func (k *key) auth(h tpm2.TPMHandle) tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: h, Name: k.name, Auth: tpm2.PasswordAuth(nil)}
}
