// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/coproctest/tpmtest"
)

// content makes bytes that stand for a certificate.
func content(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

// certify certifies the sample TPM: with what issue gives, or with one content for
// each key and a chain.
func certify(t *testing.T, m *machine, eks []EK, fresh bool, issue func(has *Certificates) *Certificates) {
	t.Helper()
	err := Certify(m.eng, m.restart, eks, fresh, func(_ *Properties, has *Certificates) (*Certificates, error) {
		return issue(has), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.restart(); err != nil {
		t.Fatal(err)
	}
	m.Startup()
}

// everything is a certificate for each key, and a chain of three indices.
func everything(has *Certificates) *Certificates {
	give := &Certificates{Chain: content(0xcc, 2*maxIndex+1)}
	for i, k := range has.Keys {
		k.Index, k.DER = abi.CertificateIndex(k.Handle), content(byte(i+1), 700+400*i)
		give.Keys = append(give.Keys, k)
	}
	return give
}

// readAll reads an index as the guest's owner, and its attributes.
func readAll(t *testing.T, m *machine, index uint32) ([]byte, tpm2.TPMANV) {
	t.Helper()
	all, err := tpmtest.ReadIndex(m, index)
	if err != nil {
		t.Fatalf("%#x: %v", index, err)
	}
	r, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(index)}.Execute(m)
	if err != nil {
		return nil, tpm2.TPMANV{}
	}
	public, err := r.NVPublic.Contents()
	if err != nil {
		t.Fatal(err)
	}
	return all, public.Attributes
}

func TestCertificatesAreThereAndLocked(t *testing.T) {
	m, res := newProvisioned(t)
	var seen *Certificates
	certify(t, m, res.EKs, false, func(has *Certificates) *Certificates { seen = has; return everything(has) })
	if len(seen.Keys) != 3 || len(seen.Chain) != 0 {
		t.Fatalf("a new TPM has %+v", seen)
	}
	for i, k := range seen.Keys {
		if k.Index != 0 || len(k.DER) != 0 || !bytes.Equal(k.Public, res.EKs[i].Public) {
			t.Errorf("a new TPM has %+v", k)
		}
		index := abi.CertificateIndex(k.Handle)
		got, attributes := readAll(t, m, index)
		if want := content(byte(i+1), 700+400*i); !bytes.Equal(got, want) {
			t.Errorf("%#x has %d bytes", index, len(got))
		}
		if !attributes.PlatformCreate || !attributes.WriteLocked || !attributes.WriteDefine || !attributes.NoDA || attributes.OwnerWrite || attributes.AuthWrite {
			t.Errorf("%#x has %+v", index, attributes)
		}
	}
	var chain []byte
	for i := range uint32(4) {
		part, _ := readAll(t, m, abi.IndexEKChain+i)
		chain = append(chain, part...)
	}
	if !bytes.Equal(chain, content(0xcc, 2*maxIndex+1)) {
		t.Errorf("chain of %d bytes", len(chain))
	}
}

// TestGuestCannotChangeCertificates: nor can whoever has the platform's password
// write them, after any power cycle.
func TestGuestCannotChangeCertificates(t *testing.T) {
	m, res := newProvisioned(t)
	certify(t, m, res.EKs, false, everything)
	for _, index := range []uint32{abi.IndexRSAEK, abi.IndexP256EK, abi.IndexP384EK, abi.IndexEKChain, abi.IndexEKChain + 2} {
		r, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(index)}.Execute(m)
		if err != nil {
			t.Fatal(err)
		}
		nv := tpm2.NamedHandle{Handle: tpm2.TPMHandle(index), Name: r.NVName}
		for who, auth := range map[string]tpm2.TPMHandle{"owner": tpm2.TPMRHOwner, "platform": tpm2.TPMRHPlatform} {
			write := tpm2.NVWrite{AuthHandle: auth, NVIndex: nv, Data: tpm2.TPM2BMaxNVBuffer{Buffer: []byte{1}}}
			if _, err := write.Execute(m); err == nil {
				t.Errorf("the %s writes %#x", who, index)
			}
		}
		if _, err := (tpm2.NVUndefineSpace{AuthHandle: tpm2.TPMRHOwner, NVIndex: nv}).Execute(m); !errors.Is(err, tpm2.TPMRCNVAuthorization) {
			t.Errorf("the owner removes %#x: %v", index, err)
		}
	}
}

// TestCertifyAgain: what is given takes the place of what is there, and what is
// not given stays. A shorter chain leaves nothing of the longer.
func TestCertifyAgain(t *testing.T) {
	m, res := newProvisioned(t)
	certify(t, m, res.EKs, false, everything)
	certify(t, m, res.EKs, false, func(has *Certificates) *Certificates {
		want := everything(&Certificates{Keys: has.Keys})
		for i, k := range has.Keys {
			if k.Index != abi.CertificateIndex(k.Handle) || !bytes.Equal(k.DER, want.Keys[i].DER) {
				t.Errorf("%#x has %d bytes in %#x", k.Handle, len(k.DER), k.Index)
			}
		}
		if !bytes.Equal(has.Chain, want.Chain) {
			t.Errorf("chain of %d bytes", len(has.Chain))
		}
		return &Certificates{Chain: content(0xdd, 10), Keys: []abi.EKCertificate{
			{Handle: has.Keys[0].Handle, DER: content(9, 9)}, // nowhere
			{Handle: has.Keys[1].Handle, Index: abi.IndexP256EK, DER: content(8, 8)},
		}}
	})
	for index, want := range map[uint32][]byte{
		abi.IndexRSAEK: content(1, 700), abi.IndexP256EK: content(8, 8), abi.IndexP384EK: content(3, 1500),
		abi.IndexEKChain: content(0xdd, 10), abi.IndexEKChain + 1: nil, abi.IndexEKChain + 2: nil,
	} {
		if got, _ := readAll(t, m, index); !bytes.Equal(got, want) {
			t.Errorf("%#x has %d bytes, want %d", index, len(got), len(want))
		}
	}
}

// TestNewIdentityLosesCertificates: those of keys that are gone go too.
func TestNewIdentityLosesCertificates(t *testing.T) {
	m, res := newProvisioned(t)
	certify(t, m, res.EKs, false, everything)
	next, err := NewIdentity(m.eng, m.restart, abi.KeyP256EK)
	if err != nil {
		t.Fatal(err)
	}
	certify(t, m, next.EKs, true, func(has *Certificates) *Certificates {
		if len(has.Keys) != 1 || has.Keys[0].Index != 0 || len(has.Chain) != 0 {
			t.Errorf("after a new identity it has %+v", has)
		}
		return &Certificates{}
	})
	left, err := (&provisioner{tpm: m.eng}).indices(0x01c00000, 0x01c10000)
	if err != nil || len(left) != 0 {
		t.Errorf("indices %x are left, %v", left, err)
	}
}

// TestStrangeContents: an index that the platform can't read is known to be there.
func TestStrangeContents(t *testing.T) {
	m, res := newProvisioned(t)
	m.DefineNV(0x01c00002, 100) // by the owner, and not readable by the platform
	m.DefineNV(0x01c00100, 100) // the same
	certify(t, m, res.EKs, false, func(has *Certificates) *Certificates {
		if k := has.Keys[0]; k.Index != abi.IndexRSAEK || !bytes.Equal(k.DER, Unreadable) || !bytes.Equal(has.Chain, Unreadable) {
			t.Errorf("%+v, chain %x", k, has.Chain)
		}
		return &Certificates{Keys: slices.Clone(has.Keys[1:])}
	})
	m.WriteNV(0x01c00002, content(7, 100))
	if got, attributes := readAll(t, m, abi.IndexRSAEK); !attributes.OwnerWrite || !bytes.Equal(got, content(7, 100)) {
		t.Errorf("the owner's index is %+v", attributes)
	}
}

func TestFullNV(t *testing.T) {
	m, res := newProvisioned(t)
	for i := range uint32(200) {
		_, err := tpm2.NVDefineSpace{AuthHandle: tpm2.TPMRHOwner, PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{
			NVIndex: tpm2.TPMHandle(0x01800000 + i), NameAlg: tpm2.TPMAlgSHA256, DataSize: 2048,
			Attributes: tpm2.TPMANV{OwnerWrite: true, OwnerRead: true},
		})}.Execute(m)
		if errors.Is(err, tpm2.TPMRCNVSpace) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	err := Certify(m.eng, m.restart, res.EKs, false, func(_ *Properties, has *Certificates) (*Certificates, error) {
		return everything(has), nil
	})
	if !errors.Is(err, ErrFull) {
		t.Errorf("a full TPM: %v, want ErrFull", err)
	}
}

func TestIssueRefuses(t *testing.T) {
	m, res := newProvisioned(t)
	want := errors.New("no")
	err := Certify(m.eng, m.restart, res.EKs, false, func(p *Properties, _ *Certificates) (*Certificates, error) {
		if p.Maker != 0x49424d00 || p.Revision < 164 || p.Firmware == 0 {
			t.Errorf("properties %+v", p)
		}
		return nil, want
	})
	if !errors.Is(err, want) {
		t.Errorf("Certify: %v, want the refusal", err)
	}
}

func TestParseEK(t *testing.T) {
	m, res := newProvisioned(t)
	for i, ek := range res.EKs {
		r, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(ek.Handle)}.Execute(m)
		if err != nil {
			t.Fatal(err)
		}
		if want := r.OutPublic.Bytes(); !bytes.Equal(ek.Public, want) {
			t.Errorf("%s: public area %x, want %x", catalog[i].name, ek.Public, want)
		}
		public, err := r.OutPublic.Contents()
		if err != nil {
			t.Fatal(err)
		}
		want, err := tpm2.Pub(*public)
		if err != nil {
			t.Fatal(err)
		}
		key, name, err := ParseEK(ek.Public)
		if err != nil || !bytes.Equal(name, ek.Name) {
			t.Fatalf("%s: name %x, %v", catalog[i].name, name, err)
		}
		if same, ok := key.(interface{ Equal(crypto.PublicKey) bool }); !ok || !same.Equal(want) {
			t.Errorf("%s: key %v, want %v", catalog[i].name, key, want)
		}
		refuseChanges(t, ek.Public)
	}
	if _, _, err := ParseEK(catalog[3].public); !errors.Is(err, ErrPublic) { // no modulus
		t.Errorf("a template: %v, want ErrPublic", err)
	}
}

// refuseChanges cuts and changes a public area.
func refuseChanges(t *testing.T, public []byte) {
	t.Helper()
	for n := range public {
		if _, _, err := ParseEK(public[:n]); !errors.Is(err, ErrPublic) {
			t.Errorf("cut to %d bytes: %v, want ErrPublic", n, err)
		}
	}
	if _, _, err := ParseEK(append(bytes.Clone(public), 0)); !errors.Is(err, ErrPublic) {
		t.Errorf("with a byte more: %v, want ErrPublic", err)
	}
	signing := bytes.Clone(public)
	signing[5] |= sign >> 16
	if _, _, err := ParseEK(signing); !errors.Is(err, ErrPublic) {
		t.Errorf("a key that signs: %v, want ErrPublic", err)
	}
	movable := bytes.Clone(public)
	movable[7] &^= fixedTPM
	if _, _, err := ParseEK(movable); !errors.Is(err, ErrPublic) {
		t.Errorf("a key that may leave: %v, want ErrPublic", err)
	}
}

func FuzzParseEK(f *testing.F) {
	for _, k := range catalog {
		f.Add(k.public)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		key, name, err := ParseEK(b)
		switch key := key.(type) {
		case *rsa.PublicKey:
			if key.N.BitLen() != 2048 {
				t.Errorf("RSA of %d bits", key.N.BitLen())
			}
		case *ecdsa.PublicKey:
		default:
			if err == nil || name != nil {
				t.Errorf("key %v, name %x, %v", key, name, err)
			}
		}
	})
}

func TestAsleep(t *testing.T) {
	m, _ := newProvisioned(t)
	for state, want := range map[tpm2.TPMSU]bool{tpm2.TPMSUClear: false, tpm2.TPMSUState: true} {
		if _, err := (tpm2.Shutdown{ShutdownType: state}).Execute(m); err != nil {
			t.Fatal(err)
		}
		if got, err := Asleep(m.eng, m.restart); got != want || err != nil {
			t.Errorf("after shutdown %v: Asleep = %v, %v", state, got, err)
		}
		if err := m.restart(); err != nil {
			t.Fatal(err)
		}
		m.Startup()
	}
}
