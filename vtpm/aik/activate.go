// SPDX-License-Identifier: Apache-2.0

package aik

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// Activate opens a credential that was made for this key and the endorsement key of
// EKCertificate: blob is a TPM2B_ID_OBJECT, secret a TPM2B_ENCRYPTED_SECRET, as
// control/enrol makes them. It gives what is in it, for who made it. The error is
// ErrCredential if the TPM finds that it is for another TPM or key.
func (h *Host) Activate(blob, secret []byte) ([]byte, error) {
	id, err := only2B(blob)
	if err != nil {
		return nil, fmt.Errorf("aik: %w: its blob: %w", ErrCredential, err)
	}
	seed, err := only2B(secret)
	if err != nil {
		return nil, fmt.Errorf("aik: %w: its secret: %w", ErrCredential, err)
	}
	var opened []byte
	err = h.do(context.Background(), func(t *lane) (err error) {
		opened, err = h.activate(t, tpm2.TPM2BIDObject{Buffer: id}, tpm2.TPM2BEncryptedSecret{Buffer: seed})
		return err
	})
	return opened, err
}

// maxPart bounds either half of a credential; RSA-4096 makes a secret of 512 bytes.
const maxPart = 1024

// only2B takes what is one structure with its size.
func only2B(b []byte) ([]byte, error) {
	content, rest, err := cut2B(b)
	if err != nil {
		return nil, err
	}
	if len(rest) != 0 || len(content) > maxPart {
		return nil, errors.New("it is too long")
	}
	return content, nil
}

func (h *Host) activate(t *lane, id tpm2.TPM2BIDObject, seed tpm2.TPM2BEncryptedSecret) ([]byte, error) {
	der, _, err := h.certificate(t)
	if err != nil {
		return nil, err
	}
	// First this: it may need the room of two objects itself.
	key, err := h.load(t)
	if err != nil {
		return nil, err
	}
	ek, err := h.endorsementKey(t, der)
	if err != nil {
		return nil, err
	}
	by, err := h.useEK(t, ek)
	if err != nil {
		return nil, err
	}
	rsp, err := tpm2.ActivateCredential{
		ActivateHandle: key,
		KeyHandle:      tpm2.AuthHandle{Handle: ek.handle, Name: ek.name, Auth: by},
		CredentialBlob: id, Secret: seed,
	}.Execute(t)
	if refused(err) {
		return nil, fmt.Errorf("%w: %w", ErrCredential, err)
	}
	if err != nil {
		return nil, tpmError("open the credential", err)
	}
	return rsp.CertInfo.Buffer, nil
}

// refused tells whether the TPM found a credential that is not for it.
func refused(err error) bool {
	for _, code := range []tpm2.TPMRC{tpm2.TPMRCIntegrity, tpm2.TPMRCValue, tpm2.TPMRCSize, tpm2.TPMRCECCPoint, tpm2.TPMRCInsufficient, tpm2.TPMRCNoResult} {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}

// useEK starts a session that may use the endorsement key, and that encrypts what
// the TPM answers by a secret that only this EK can know. EKs of the low range want
// the profile's PolicyA, which is the endorsement hierarchy's consent; those of
// the high range take their own authorization value, which is empty.
func (h *Host) useEK(t *lane, ek *endorsementKey) (tpm2.Session, error) {
	options := []tpm2.AuthOption{tpm2.Salted(ek.handle, ek.public), tpm2.AESEncryption(128, tpm2.EncryptOut)}
	if ek.public.ObjectAttributes.UserWithAuth {
		s, _, err := tpm2.HMACSession(t, tpm2.TPMAlgSHA256, nonceSize, options...)
		if err != nil {
			return nil, tpmError("start a session", err)
		}
		return s, nil
	}
	s, _, err := tpm2.PolicySession(t, ek.public.NameAlg, nonceSize, options...)
	if err != nil {
		return nil, tpmError("start a session", err)
	}
	auth, done, err := authorize(t, tpm2.TPMRHEndorsement, h.opts.EndorsementAuth)
	if err != nil {
		return nil, err
	}
	defer done()
	if _, err := (tpm2.PolicySecret{AuthHandle: auth, PolicySession: s.Handle(), NonceTPM: s.NonceTPM()}).Execute(t); err != nil {
		return nil, tpmError("get the endorsement hierarchy's consent", err)
	}
	return s, nil
}
