// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"slices"
	"testing"

	"github.com/google/go-tpm/tpm2"
)

// ekKinds are endorsement keys as a card makes them.
var ekKinds = map[string]tpm2.TPMTPublic{"RSA-2048": tpm2.RSAEKTemplate, "P-256": tpm2.ECCEKTemplate}

// An endorsement key's public area is read whole, byte by byte, and its Name is the one
// that its TPM gives it.
func TestEKPublicIsRead(t *testing.T) {
	p := newTPM(t, nil)
	other := p.aik()
	for kind, template := range ekKinds {
		k := p.primary(template)
		name, err := ekName(k.public, k.pub)
		if err != nil || !bytes.Equal(name, k.handle.Name.Buffer) {
			t.Fatalf("%s: ekName = %x, %v, the TPM says %x", kind, name, err, k.handle.Name.Buffer)
		}
		if _, err := ekName(k.public, other.pub); err == nil {
			t.Errorf("%s: taken for another key", kind)
		}
		for n := range k.public {
			if _, err := ekName(k.public[:n], k.pub); err == nil {
				t.Errorf("%s: %d bytes of it are read", kind, n)
			}
			bad := slices.Clone(k.public)
			bad[n] ^= 1 << (n % 8)
			if got, err := ekName(bad, k.pub); err == nil && bytes.Equal(got, name) {
				t.Errorf("%s: with byte %d changed it has the same name", kind, n)
			}
		}
		if _, err := ekName(append(slices.Clone(k.public), 0), k.pub); err == nil {
			t.Errorf("%s: something behind its end is let pass", kind)
		}
	}
	if _, err := ekName(other.public, other.pub); err == nil {
		t.Error("a signing key is an endorsement key")
	}
}

// ekByGoTPM reads an endorsement key's public area as go-tpm does.
func ekByGoTPM(public []byte) (name []byte, key crypto.PublicKey, ok bool) {
	pub, err := tpm2.Unmarshal[tpm2.TPMTPublic](public)
	if err != nil || !bytes.Equal(tpm2.Marshal(pub), public) {
		return nil, nil, false
	}
	a := pub.ObjectAttributes
	if !a.Restricted || !a.Decrypt || a.SignEncrypt || !a.FixedTPM || !a.FixedParent || !a.SensitiveDataOrigin {
		return nil, nil, false
	}
	n, err := tpm2.ObjectName(pub)
	if err == nil {
		key, err = tpm2.Pub(*pub)
	}
	if err != nil {
		return nil, nil, false
	}
	return n.Buffer, key, true
}

// FuzzEKPublic holds the parser against go-tpm's: what is an endorsement key here is one
// there, by the same Name and key. The other way round go-tpm takes more: other ciphers
// and schemes than an endorsement key may have, and names by SHA-1.
func FuzzEKPublic(f *testing.F) {
	ev := ok[*Evidence](f)(Parse(golden(f, "evidence.json")))
	certs, err := goldenVerifier(f).bindingChain(ev.Binding.Chain)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(ev.Binding.EKPublic))
	f.Fuzz(func(t *testing.T, public []byte) {
		name, err := ekName(public, certs.ek().PublicKey)
		if err != nil {
			return
		}
		want, key, good := ekByGoTPM(public)
		if same, is := key.(*ecdsa.PublicKey); !good || !bytes.Equal(name, want) || !is || !same.Equal(certs.ek().PublicKey) {
			t.Errorf("ekName(%x) = %x; go-tpm: %x, %v", public, name, want, good)
		}
	})
}

func TestCurvesOfTPMs(t *testing.T) {
	for curve, id := range tpmCurves {
		if known, err := id.Curve(); err != nil || known != curve {
			t.Errorf("curve %#x is %v, %v", uint16(id), known, err)
		}
	}
	if len(tpmCurves) != 3 || tpmCurves[elliptic.P224()] != 0 {
		t.Error("other curves than P-256, P-384 and P-521")
	}
}
