// SPDX-License-Identifier: Apache-2.0

package hosttpm

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/firmware/sealed"
)

// Source is a card storage key that the host's TPM releases only while chosen
// PCRs are as they were when it was sealed.
type Source struct {
	tpm  *TPM // a pointer, so that nothing prints OwnerAuth
	file *sealed.File
}

var _ sealed.KeySource = (*Source)(nil)

// SealKey seals key under the PCRs as they are now, and writes the result to a
// new file at path once it was unsealed again as a proof. It replaces no file:
// the error is fs.ErrExist then.
//
// PCRs change with the host's firmware and boot loader. Keep the key where it can
// be sealed from again, such as in a sealed.KeyFile that is not on this host.
func SealKey(t TPM, path string, key *sealed.Key, sel Selection) (*Source, error) {
	mask, err := sel.mask()
	if err != nil {
		return nil, err
	}
	if sel, err = selectionOf(sel.Bank, mask); err != nil {
		return nil, err
	}
	k, err := t.seal(key, sel)
	if err != nil {
		return nil, err
	}
	again, err := t.unseal(k)
	if err != nil {
		return nil, fmt.Errorf("try what was sealed: %w", err)
	}
	defer again.Clear()
	if !bytes.Equal(again.Bytes(), key.Bytes()) {
		return nil, fmt.Errorf("host TPM unseals another key than it was given: %w", sealed.ErrDamaged)
	}
	b, err := k.append(nil)
	if err != nil {
		return nil, err
	}
	s := OpenKey(t, path)
	if err := s.file.Create(b); err != nil {
		return nil, fmt.Errorf("sealed key: %w", err)
	}
	return s, nil
}

// OpenKey names the file of a sealed key, which is read when Key is called.
func OpenKey(t TPM, path string) *Source { return &Source{tpm: &t, file: sealed.NewFile(path)} }

// Key implements sealed.KeySource.
func (s *Source) Key() (*sealed.Key, error) {
	b, err := s.file.Read()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("sealed key: %w; restore it, or seal the key anew from its backup", err)
	}
	if err != nil {
		return nil, fmt.Errorf("sealed key: %w", err)
	}
	k, err := parseSealedKey(b)
	if err != nil {
		return nil, err
	}
	return s.tpm.unseal(k)
}

// String implements sealed.KeySource.
func (s *Source) String() string {
	return "host TPM: unseals only on this host and in the measured state it was sealed for"
}

// seal makes a sealed data object of the key under the primary key.
func (t TPM) seal(key *sealed.Key, sel Selection) (*sealedKey, error) {
	values, err := sel.read(t)
	if err != nil {
		return nil, err
	}
	policy, err := sel.policy(values)
	if err != nil {
		return nil, err
	}
	p, err := t.primary()
	if err != nil {
		return nil, err
	}
	defer p.flush()
	session, done, err := t.session(p.secure(bothWays)...)
	if err != nil {
		return nil, err
	}
	defer done()
	rsp, err := tpm2.Create{
		ParentHandle: p.auth(session),
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
			Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: key.Bytes()}),
		}},
		InPublic: tpm2.New2B(tpm2.TPMTPublic{
			Type:    tpm2.TPMAlgKeyedHash,
			NameAlg: tpm2.TPMAlgSHA256,
			// No UserWithAuth: the policy is the only way in. NoDA: a host
			// that was attacked must not be locked out of its key.
			ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, NoDA: true},
			AuthPolicy:       tpm2.TPM2BDigest{Buffer: policy},
		}),
	}.Execute(t.Transport)
	if err != nil {
		return nil, fmt.Errorf("host TPM: seal: %w", err)
	}
	return &sealedKey{
		selection: sel, values: values, primary: [nameSize]byte(p.name.Buffer),
		public: rsp.OutPublic.Bytes(), private: rsp.OutPrivate.Buffer,
	}, nil
}

// unseal gets the key, in a session that encrypts it on the way.
func (t TPM) unseal(k *sealedKey) (*sealed.Key, error) {
	p, err := t.primary()
	if err != nil {
		return nil, err
	}
	defer p.flush()
	if !bytes.Equal(p.name.Buffer, k.primary[:]) {
		return nil, fmt.Errorf("host TPM has primary key %x, the key was sealed by %x: %w; seal it anew from its backup", p.name.Buffer, k.primary, ErrOtherTPM)
	}
	loading, done, err := t.session(p.secure(bothWays)...)
	if err != nil {
		return nil, err
	}
	defer done()
	object, err := tpm2.Load{
		ParentHandle: p.auth(loading),
		InPublic:     tpm2.BytesAs2B[tpm2.TPMTPublic](k.public),
		InPrivate:    tpm2.TPM2BPrivate{Buffer: k.private},
	}.Execute(t.Transport)
	if err != nil {
		return nil, fmt.Errorf("host TPM: load the sealed key: %w: %w", err, sealed.ErrDamaged)
	}
	defer flush(t.Transport, object.ObjectHandle)
	session, end, err := tpm2.PolicySession(t.Transport, tpm2.TPMAlgSHA256, nonceSize, p.secure(outbound)...)
	if err != nil {
		return nil, fmt.Errorf("host TPM: policy session: %w", err)
	}
	defer end()
	_, err = tpm2.PolicyPCR{PolicySession: session.Handle(), Pcrs: k.selection.list()}.Execute(t.Transport)
	var rsp *tpm2.UnsealResponse
	if err == nil {
		rsp, err = tpm2.Unseal{
			ItemHandle: tpm2.AuthHandle{Handle: object.ObjectHandle, Name: object.Name, Auth: session},
		}.Execute(t.Transport)
	}
	if err != nil {
		return nil, t.explain(k, err)
	}
	return sealed.KeyFrom(rsp.OutData.Buffer)
}

// explain says which PCRs are in the way, if it is them.
func (t TPM) explain(k *sealedKey, err error) error {
	if !errors.Is(err, tpm2.TPMRCPolicyFail) && !errors.Is(err, tpm2.TPMRCPCRChanged) {
		return fmt.Errorf("host TPM: unseal: %w", err)
	}
	is, rerr := k.selection.read(t)
	if rerr != nil {
		return fmt.Errorf("host TPM: unseal: %w: %w", err, rerr)
	}
	return fmt.Errorf("host TPM: unseal: %w: %s: boot what was measured then, or seal the key anew from its backup: %w", ErrPCRs, k.selection.differences(k.values, is), err)
}
