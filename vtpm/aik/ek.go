// SPDX-License-Identifier: Apache-2.0

package aik

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"
)

// profile is a kind of endorsement key: "TCG EK Credential Profile for TPM Family
// 2.0", 2.2.1.4 and annex B.
type profile struct {
	name     string
	index    tpm2.TPMHandle // of its certificate
	nonce    tpm2.TPMHandle // of what makes it another key than the template alone, or 0
	template tpm2.TPMHandle // of its template, if it is another than the profile's
	public   tpm2.TPMTPublic
}

// profiles are in the order in which their certificates are looked for.
var profiles = []profile{
	{"L-2", 0x01c0000a, 0x01c0000b, 0x01c0000c, tpm2.ECCEKTemplate},
	{"H-2", 0x01c00014, 0, 0x01c00015, highECC(tpm2.TPMECCNistP256, tpm2.TPMAlgSHA256, 128, policyB256)},
	{"H-3", 0x01c00016, 0, 0x01c00017, highECC(tpm2.TPMECCNistP384, tpm2.TPMAlgSHA384, 256, policyB384)},
	{"L-1", 0x01c00002, 0x01c00003, 0x01c00004, tpm2.RSAEKTemplate},
	{"H-1", 0x01c00012, 0, 0x01c00013, highRSA(2048, tpm2.TPMAlgSHA256, 128, policyB256)},
	{"H-6", 0x01c0001c, 0, 0x01c0001d, highRSA(3072, tpm2.TPMAlgSHA384, 256, policyB384)},
}

// PolicyB of the profile: PolicyA or what an NV index of the platform's says.
var (
	policyB256 = []byte("\xca\x3d\x0a\x99\xa2\xb9\x39\x06\xf7\xa3\x34\x24\x14\xef\xcf\xb3" +
		"\xa3\x85\xd4\x4c\xd1\xfd\x45\x90\x89\xd1\x9b\x50\x71\xc0\xb7\xa0")
	policyB384 = []byte("\xb2\x6e\x7d\x28\xd1\x1a\x50\xbc\x53\xd8\x82\xbc\xf5\xfd\x3a\x1a" +
		"\x07\x41\x48\xbb\x35\xd3\xb4\xe4\xcb\x1c\x0a\xd9\xbd\xe4\x19\xca" +
		"\xcb\x47\xba\x09\x69\x96\x46\x15\x0f\x9f\xc0\x00\xf3\xf8\x0e\x12")
)

// high is a template of the profile's high range: keys with a password, empty, for
// their use, and PolicyB for what needs more.
func high(hash tpm2.TPMIAlgHash, policy []byte, alg tpm2.TPMIAlgPublic, parameters tpm2.TPMUPublicParms, unique tpm2.TPMUPublicID) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type: alg, NameAlg: hash, AuthPolicy: tpm2.TPM2BDigest{Buffer: policy},
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true,
			UserWithAuth: true, AdminWithPolicy: true, Restricted: true, Decrypt: true},
		Parameters: parameters, Unique: unique,
	}
}

func highECC(curve tpm2.TPMECCCurve, hash tpm2.TPMIAlgHash, aes tpm2.TPMKeyBits, policy []byte) tpm2.TPMTPublic {
	parameters := tpm2.TPMSECCParms{Symmetric: aesCFB(aes), CurveID: curve}
	return high(hash, policy, tpm2.TPMAlgECC, tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &parameters),
		tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{}))
}

func highRSA(bits tpm2.TPMKeyBits, hash tpm2.TPMIAlgHash, aes tpm2.TPMKeyBits, policy []byte) tpm2.TPMTPublic {
	parameters := tpm2.TPMSRSAParms{Symmetric: aesCFB(aes), KeyBits: bits}
	return high(hash, policy, tpm2.TPMAlgRSA, tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &parameters),
		tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{}))
}

func aesCFB(bits tpm2.TPMKeyBits) tpm2.TPMTSymDefObject {
	return tpm2.TPMTSymDefObject{
		Algorithm: tpm2.TPMAlgAES,
		KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, bits),
		Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
	}
}

// endorsementKey is an EK in the TPM.
type endorsementKey struct {
	handle tpm2.TPMHandle
	name   tpm2.TPM2BName
	public tpm2.TPMTPublic
}

// Persistent handles where an EK may be: "TCG TPM v2.0 Provisioning Guidance", 7.8.
const (
	firstEK tpm2.TPMHandle = 0x81010000
	lastEK  tpm2.TPMHandle = 0x8101ffff
)

// endorsementKey gives the key of a certificate: a persistent one, since an RSA key
// takes a TPM many seconds to make, or one made by its profile, which is loaded then.
func (h *Host) endorsementKey(t *lane, der []byte) (*endorsementKey, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("EK certificate: %w", err)
	}
	want, err := keyBits(cert.RawSubjectPublicKeyInfo)
	if err != nil {
		return nil, fmt.Errorf("EK certificate: %w", err)
	}
	persistent, err := handles(t, firstEK, lastEK)
	if err != nil {
		return nil, err
	}
	for _, handle := range persistent {
		rsp, err := tpm2.ReadPublic{ObjectHandle: handle}.Execute(t)
		if err != nil {
			return nil, tpmError(fmt.Sprintf("read the key %#x", uint32(handle)), err)
		}
		if ek, err := newEK(handle, rsp.OutPublic, want); ek != nil || err != nil {
			return ek, err
		}
	}
	return h.makeEK(t, want)
}

func (h *Host) makeEK(t *lane, want []byte) (*endorsementKey, error) {
	there, err := endorsementIndices(t)
	if err != nil {
		return nil, err
	}
	auth, done, err := authorize(t, tpm2.TPMRHEndorsement, h.opts.EndorsementAuth)
	if err != nil {
		return nil, err
	}
	defer done()
	for _, p := range profiles {
		if !p.fits(want) {
			continue
		}
		public, err := h.ekTemplate(t, &p, there)
		if err != nil {
			return nil, err
		}
		rsp, err := tpm2.CreatePrimary{PrimaryHandle: auth, InPublic: tpm2.New2B(public)}.Execute(t)
		if err != nil {
			return nil, tpmError("make the endorsement key "+p.name, err)
		}
		if ek, err := newEK(rsp.ObjectHandle, rsp.OutPublic, want); ek != nil || err != nil {
			return ek, err
		}
		t.drop(rsp.ObjectHandle)
	}
	return nil, fmt.Errorf("%w: the TPM has no endorsement key of the EK certificate: it is of another TPM, or of a template that is neither the profile's nor in NV", ErrOtherTPM)
}

// fits tells by its size whether a key can be of the profile.
func (p *profile) fits(key []byte) bool {
	if d, err := p.public.Parameters.ECCDetail(); err == nil {
		size := map[tpm2.TPMECCCurve]int{tpm2.TPMECCNistP256: 65, tpm2.TPMECCNistP384: 97}[d.CurveID]
		return len(key) == size
	}
	d, err := p.public.Parameters.RSADetail()
	n := int(d.KeyBits) / 8
	return err == nil && len(key) > n && len(key) < n+32 // a SEQUENCE of modulus and exponent
}

// ekTemplate gives what the key is made from: the profile's template, or the one in
// NV; with the nonce in NV where its unique field begins.
func (h *Host) ekTemplate(t *lane, p *profile, there []tpm2.TPMHandle) (tpm2.TPMTPublic, error) {
	public := p.public
	if slices.Contains(there, p.template) {
		b, err := h.readNV(t, p.template)
		if err != nil {
			return public, err
		}
		own, err := tpm2.Unmarshal[tpm2.TPMTPublic](b)
		if err != nil {
			return public, fmt.Errorf("%w: EK template in NV: %w", ErrTPM, err)
		}
		public = *own
	}
	if p.nonce == 0 || !slices.Contains(there, p.nonce) {
		return public, nil
	}
	nonce, err := h.readNV(t, p.nonce)
	if err != nil {
		return public, err
	}
	public.Unique, err = uniqueOf(public.Type, nonce)
	return public, err
}

// uniqueOf is a unique field that begins with a nonce, and is zero after it.
func uniqueOf(alg tpm2.TPMIAlgPublic, nonce []byte) (tpm2.TPMUPublicID, error) {
	size := map[tpm2.TPMIAlgPublic]int{tpm2.TPMAlgRSA: 256, tpm2.TPMAlgECC: 32}[alg]
	if len(nonce) > size {
		return tpm2.TPMUPublicID{}, fmt.Errorf("%w: EK nonce in NV of %d bytes", ErrTPM, len(nonce))
	}
	first := append(bytes.Clone(nonce), make([]byte, size-len(nonce))...)
	if alg == tpm2.TPMAlgRSA {
		return tpm2.NewTPMUPublicID(alg, &tpm2.TPM2BPublicKeyRSA{Buffer: first}), nil
	}
	return tpm2.NewTPMUPublicID(alg, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: first}, Y: tpm2.TPM2BECCParameter{Buffer: make([]byte, size)},
	}), nil
}

// newEK gives the key under a handle if it is the wanted one, and nil if not.
func newEK(handle tpm2.TPMHandle, public tpm2.TPM2BPublic, want []byte) (*endorsementKey, error) {
	area, err := public.Contents()
	if err != nil {
		return nil, tpmError("endorsement key", err)
	}
	if !area.ObjectAttributes.Restricted || !area.ObjectAttributes.Decrypt {
		return nil, nil
	}
	pub, err := tpm2.Pub(*area)
	if err != nil {
		return nil, nil // of a kind that no certificate here is of
	}
	if got, err := publicBits(pub); err != nil || !bytes.Equal(got, want) {
		return nil, nil
	}
	name, err := tpm2.ObjectName(area)
	if err != nil {
		return nil, tpmError("endorsement key", err)
	}
	return &endorsementKey{handle: handle, name: *name, public: *area}, nil
}

func publicBits(pub crypto.PublicKey) ([]byte, error) {
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, err
	}
	return keyBits(spki)
}

// keyBits takes the key itself from a SubjectPublicKeyInfo. Some makers give RSA keys
// the identifier of OAEP, which crypto/x509 does not read; the key is the same.
func keyBits(spki []byte) ([]byte, error) {
	var info struct {
		Algorithm asn1.RawValue
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(spki, &info); err != nil {
		return nil, fmt.Errorf("its public key cannot be read: %w", err)
	}
	return info.Key.RightAlign(), nil
}
