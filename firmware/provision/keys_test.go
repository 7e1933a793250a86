// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"hwvtpm/coproc/abi"
)

// p384EKTemplate is template H-3, which go-tpm does not have.
var p384EKTemplate = tpm2.TPMTPublic{
	Type:    tpm2.TPMAlgECC,
	NameAlg: tpm2.TPMAlgSHA384,
	ObjectAttributes: tpm2.TPMAObject{
		FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true,
		UserWithAuth: true, AdminWithPolicy: true, Restricted: true, Decrypt: true,
	},
	AuthPolicy: tpm2.TPM2BDigest{Buffer: policyBSHA384},
	Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		Symmetric: tpm2.TPMTSymDefObject{
			Algorithm: tpm2.TPMAlgAES,
			KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, tpm2.TPMKeyBits(256)),
			Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
		},
		CurveID: tpm2.TPMECCNistP384,
	}),
	Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{}),
}

func TestTemplates(t *testing.T) {
	want := []tpm2.TPMTPublic{tpm2.RSAEKTemplate, tpm2.ECCEKTemplate, p384EKTemplate, tpm2.RSASRKTemplate}
	for i, k := range catalog {
		if want := tpm2.Marshal(want[i]); !bytes.Equal(k.public, want) {
			t.Errorf("%s: template is\n%x, want\n%x", k.name, k.public, want)
		}
	}
}

// extend is what a policy command does to a policy digest (Part 1, "Policy
// Digest Update").
func extend(h crypto.Hash, old []byte, parts ...[]byte) []byte {
	d := h.New()
	d.Write(old)
	for _, p := range parts {
		d.Write(p)
	}
	return d.Sum(nil)
}

func u32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

// policyA is TPM2_PolicySecret(TPM_RH_ENDORSEMENT) with an empty reference.
func policyA(h crypto.Hash) []byte {
	return extend(h, extend(h, make([]byte, h.Size()), u32(0x151), u32(0x4000000b)))
}

// policyC is TPM2_PolicyAuthorizeNV of the index that holds the owner's policy
// (EK Credential Profile, annex B, "Computing PolicyC"); its name follows from its public area.
func policyC(h crypto.Hash, alg uint16, index uint32) []byte {
	const attributes = 0x220f1008 // "Policy Index I-2", once written
	nv := u32(index)
	nv = binary.BigEndian.AppendUint16(nv, alg)
	nv = append(nv, u32(attributes)...)
	nv = sized(nv, policyA(h))
	nv = binary.BigEndian.AppendUint16(nv, uint16(2+h.Size()))
	name := append(binary.BigEndian.AppendUint16(nil, alg), extend(h, nil, nv)...)
	return extend(h, make([]byte, h.Size()), u32(0x192), name)
}

// policyB is TPM2_PolicyOR of the two.
func policyB(h crypto.Hash, a, c []byte) []byte {
	return extend(h, make([]byte, h.Size()), u32(0x171), a, c)
}

func TestPolicies(t *testing.T) {
	if got := policyA(crypto.SHA256); !bytes.Equal(got, policyASHA256) {
		t.Errorf("PolicyA for SHA-256 is %x, want %x", policyASHA256, got)
	}
	a, c := policyA(crypto.SHA384), policyC(crypto.SHA384, algSHA384, 0x01c07f02)
	if got := policyB(crypto.SHA384, a, c); !bytes.Equal(got, policyBSHA384) {
		t.Errorf("PolicyB for SHA-384 is %x, want %x", policyBSHA384, got)
	}
}

// satisfy runs the policy of an endorsement key in a session: PolicyA, and for
// the high-range key that this is one of PolicyB's two branches.
func satisfy(high bool) tpm2.PolicyCallback {
	return func(tpm transport.TPM, session tpm2.TPMISHPolicy, nonce tpm2.TPM2BNonce) error {
		_, err := tpm2.PolicySecret{AuthHandle: tpm2.TPMRHEndorsement, PolicySession: session, NonceTPM: nonce}.Execute(tpm)
		if err != nil || !high {
			return err
		}
		_, err = tpm2.PolicyOr{PolicySession: session, PHashList: tpm2.TPMLDigest{Digests: []tpm2.TPM2BDigest{
			{Buffer: policyA(crypto.SHA384)},
			{Buffer: policyC(crypto.SHA384, algSHA384, 0x01c07f02)},
		}}}.Execute(tpm)
		return err
	}
}

// Somebody far away, who has the public key only, sends a secret to a key that
// is in the same TPM (Part 1, "Credential Protection").
func TestEndorsementKeysActivateCredentials(t *testing.T) {
	m, res := newProvisioned(t)
	signer := m.CreateSigner()
	for i, ek := range res.EKs {
		high := catalog[i].flag == abi.KeyP384EK
		r, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(ek.Handle)}.Execute(m)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(r.Name.Buffer, ek.Name) {
			t.Errorf("%s is called %x, was announced as %x", catalog[i].name, r.Name.Buffer, ek.Name)
		}
		public, err := r.OutPublic.Contents()
		if err != nil {
			t.Fatal(err)
		}
		remote, err := tpm2.ImportEncapsulationKey(public)
		if err != nil {
			t.Fatal(err)
		}
		secret := []byte("only this TPM")
		blob, encrypted, err := tpm2.CreateCredential(rand.Reader, remote, signer.Name.Buffer, secret)
		if err != nil {
			t.Fatal(err)
		}
		a, err := tpm2.ActivateCredential{
			ActivateHandle: tpm2.NamedHandle{Handle: signer.Handle, Name: signer.Name},
			KeyHandle: tpm2.AuthHandle{
				Handle: tpm2.TPMHandle(ek.Handle), Name: r.Name,
				Auth: tpm2.Policy(public.NameAlg, 16, satisfy(high)),
			},
			CredentialBlob: tpm2.TPM2BIDObject{Buffer: blob},
			Secret:         tpm2.TPM2BEncryptedSecret{Buffer: encrypted},
		}.Execute(m)
		if err != nil {
			t.Errorf("%s: %v", catalog[i].name, err)
		} else if !bytes.Equal(a.CertInfo.Buffer, secret) {
			t.Errorf("%s: got %q", catalog[i].name, a.CertInfo.Buffer)
		}
	}
}

func srk(t *testing.T, m *machine) tpm2.AuthHandle {
	t.Helper()
	r, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(0x81000001)}.Execute(m)
	if err != nil {
		t.Fatal(err)
	}
	return tpm2.AuthHandle{Handle: 0x81000001, Name: r.Name, Auth: tpm2.PasswordAuth(nil)}
}

// object is one that only its parent can load.
type object struct{ *tpm2.CreateResponse }

func create(t *testing.T, m *machine, parent tpm2.AuthHandle) object {
	t.Helper()
	r, err := tpm2.Create{ParentHandle: parent, InPublic: tpm2.New2B(tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, SignEncrypt: true,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256}),
	})}.Execute(m)
	if err != nil {
		t.Fatal(err)
	}
	return object{r}
}

func (o object) load(m *machine, parent tpm2.AuthHandle) (*tpm2.LoadResponse, error) {
	return tpm2.Load{ParentHandle: parent, InPrivate: o.OutPrivate, InPublic: o.OutPublic}.Execute(m)
}

// A TPM made by swtpm_setup, in which our templates must lead to the very keys
// that it made: a primary key follows from the seed and the whole template.
func TestKeysAreThoseOfSwtpmSetup(t *testing.T) {
	if os.Getenv("HWVTPM_TEST_ROOT") != "1" {
		t.Skip("needs swtpm_setup: set HWVTPM_TEST_ROOT=1 (tier test-root)")
	}
	dir := t.TempDir()
	if out, err := exec.Command("swtpm_setup", "--tpm2", "--tpmstate", dir, "--createek", "--overwrite").CombinedOutput(); err != nil {
		t.Fatalf("swtpm_setup: %v\n%s", err, out)
	}
	state, err := os.ReadFile(filepath.Join(dir, "tpm2-00.permall"))
	if err != nil {
		t.Fatal(err)
	}
	const header = 16 // of swtpm's own, before what libtpms made
	m := newMachine(t, state[header:])
	m.Startup()
	p := &provisioner{tpm: m.eng}
	found := 0
	for _, k := range catalog {
		_, theirs, err := p.public(k.handle)
		if err != nil {
			continue // not every version makes every key
		}
		found++
		handle, _, ours, err := p.create(&k)
		if err != nil {
			t.Fatalf("%s: %v", k.name, err)
		}
		if !bytes.Equal(ours, theirs) {
			t.Errorf("%s: our template gives %x, swtpm_setup made %x", k.name, ours, theirs)
		}
		if err := p.flush(handle); err != nil {
			t.Fatal(err)
		}
	}
	if found < 2 {
		t.Errorf("swtpm_setup made only %d of our keys", found)
	}
}

// The time of a key varies much with the luck of finding primes, hence the median.
func BenchmarkCreate(b *testing.B) {
	for _, k := range catalog {
		b.Run(k.name, func(b *testing.B) {
			var times []time.Duration
			for b.Loop() {
				m := newMachine(b, nil) // with a seed of its own
				m.Startup()
				p := &provisioner{tpm: m.eng}
				start := time.Now()
				if _, _, _, err := p.create(&k); err != nil {
					b.Fatal(err)
				}
				times = append(times, time.Since(start))
			}
			slices.Sort(times)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(times[len(times)/2].Microseconds()), "us/key-median")
		})
	}
}
