// SPDX-License-Identifier: Apache-2.0

package aik

import (
	"bytes"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/control/ca"
)

// TestEnrol: an authority certifies the key by each kind of endorsement key.
func TestEnrol(t *testing.T) {
	r := newRig(t)
	s := newService(t, r.makers())
	h := r.open(Options{})
	for _, p := range slices.Backward(profiles) { // the last found is the first in order
		if p.name == "H-6" {
			continue // this TPM has no RSA-3072
		}
		r.define(p.index, r.ekCert(p.public), true, nil)
		got := s.enrol(t, h)
		if host, err := ca.IsHostAIK(got.Certificate); err != nil || host != "host-1" {
			t.Errorf("%s: certificate of %q, %v", p.name, host, err)
		}
		r.empty("after " + p.name)
		err := s.cfg.Store.Update(t.Context(), forgetHosts)
		if err != nil {
			t.Fatal(err)
		}
	}
}

// credential is for an endorsement key and the name of another key.
func credential(t testing.TB, r *rig, template tpm2.TPMTPublic, name, secret []byte) (blob, seed []byte) {
	t.Helper()
	ek := r.tpm.EK(template)
	defer r.tpm.Flush(ek)
	key := must(tpm2.ImportEncapsulationKey(&ek.Public))(t)
	b, s, err := tpm2.CreateCredential(rand.Reader, key, name, secret)
	if err != nil {
		t.Fatal(err)
	}
	return tpm2.Marshal(tpm2.TPM2BIDObject{Buffer: b}), tpm2.Marshal(tpm2.TPM2BEncryptedSecret{Buffer: s})
}

// TestActivate: what a credential holds is for who has both keys, and is not heard on
// the bus.
func TestActivate(t *testing.T) {
	for _, p := range []profile{profiles[0], profiles[2], profiles[3]} {
		t.Run(p.name, func(t *testing.T) {
			r := newRig(t)
			r.define(p.index, r.ekCert(p.public), true, nil)
			h := r.open(Options{})
			secret := bytes.Repeat([]byte("sesame! "), 4)
			blob, seed := credential(t, r, p.public, h.key.name.Buffer, secret)
			got, err := h.Activate(blob, seed)
			if err != nil || !bytes.Equal(got, secret) {
				t.Fatalf("Activate: %q, %v", got, err)
			}
			if bytes.Contains(r.bus.heard, []byte("sesame!")) {
				t.Error("the secret was on the bus")
			}

			name := bytes.Clone(h.key.name.Buffer)
			name[10] ^= 1
			otherBlob, otherSeed := credential(t, r, p.public, name, secret)
			for what, c := range map[string]struct{ blob, seed []byte }{
				"of another key":   {otherBlob, otherSeed},
				"of another EK":    {blob, otherSeed},
				"blob cut":         {blob[:len(blob)-1], seed},
				"seed cut":         {blob, seed[:len(seed)-1]},
				"blob of no size":  {nil, seed},
				"empty":            {[]byte{0, 0}, []byte{0, 0}},
				"too long a blob":  {append([]byte{0xff, 0xff}, make([]byte, 0xffff)...), seed},
				"blob and a bit":   {append(bytes.Clone(blob), 0), seed},
				"blob all changed": {append([]byte{0, 64}, make([]byte, 64)...), seed},
			} {
				if got, err := h.Activate(c.blob, c.seed); !errors.Is(err, ErrCredential) {
					t.Errorf("%s: %x, %v, want %v", what, got, err, ErrCredential)
				}
				r.empty(what)
			}
		})
	}
}

// TestHierarchyAuth: authorization values that a host's operator has set are used,
// do not cross the bus, and are asked for by name.
func TestHierarchyAuth(t *testing.T) {
	r := newRig(t)
	owner, endorsement := []byte("the owner's"), []byte("the privacy administrator's")
	cert := r.ekCert(profiles[0].public)
	probe := r.open(Options{})
	blob, seed := credential(t, r, profiles[0].public, probe.key.name.Buffer, []byte("secret"))
	for hierarchy, auth := range map[tpm2.TPMHandle][]byte{tpm2.TPMRHOwner: owner, tpm2.TPMRHEndorsement: endorsement} {
		_, err := tpm2.HierarchyChangeAuth{
			AuthHandle: tpm2.AuthHandle{Handle: hierarchy, Auth: tpm2.PasswordAuth(nil)}, NewAuth: tpm2.TPM2BAuth{Buffer: auth},
		}.Execute(r.tpm)
		if err != nil {
			t.Fatal(err)
		}
	}
	r.define(profiles[0].index, cert, false, owner) // so that reading it takes the owner
	h := r.open(Options{OwnerAuth: owner, EndorsementAuth: endorsement})
	if _, err := h.Activate(blob, seed); err != nil {
		t.Errorf("Activate: %v", err)
	}
	for _, auth := range [][]byte{owner, endorsement} {
		if bytes.Contains(r.bus.heard, auth) {
			t.Errorf("%q was on the bus", auth)
		}
		bytesOf := strings.Trim(fmt.Sprint(auth), "[]")
		if all := fmt.Sprintf("%+v %v %s", h, *h.opts, h.opts); strings.Contains(all, string(auth)) || strings.Contains(all, bytesOf) {
			t.Errorf("%q is printed", auth)
		}
	}
	r.empty("with authorizations")
	if _, err := Open(r.bus, r.dir, Options{}); !errors.Is(err, ErrAuth) || !errors.Is(err, ErrTPM) {
		t.Errorf("Open without the owner's authorization: %v, want %v", err, ErrAuth)
	}
	if _, err := Open(r.bus, r.dir, Options{OwnerAuth: []byte("a\x00b")}); err == nil {
		t.Error("an authorization value with a zero byte in it was taken")
	}
	h = r.open(Options{OwnerAuth: owner, EndorsementAuth: []byte("wrong")})
	if _, err := h.Activate(blob, seed); !errors.Is(err, ErrAuth) {
		t.Errorf("Activate with another authorization: %v, want %v", err, ErrAuth)
	}
	r.empty("after wrong authorizations")
}

// TestEKCertificate: forms in which makers leave a certificate and its issuers.
func TestEKCertificate(t *testing.T) {
	r := newRig(t)
	h := r.open(Options{})
	_, _, err := h.EKCertificate()
	if !errors.Is(err, ErrNoCertificate) || !strings.Contains(err.Error(), filepath.Join(r.dir, ekFile)) {
		t.Errorf("none: %v", err)
	}
	if _, err := h.Activate([]byte{0, 0}, []byte{0, 0}); !errors.Is(err, ErrNoCertificate) {
		t.Errorf("Activate without a certificate: %v", err)
	}
	root, other := r.maker.Root.Certificate.Raw, r.maker.Attestation.Certificate.Raw
	cert := r.ekCert(profiles[3].public)
	check := func(what string, want []byte, chain ...[]byte) {
		t.Helper()
		der, got, err := h.EKCertificate()
		if err != nil || !bytes.Equal(der, want) || !slices.EqualFunc(got, chain, bytes.Equal) {
			t.Errorf("%s: %d bytes, %d issuers, %v", what, len(der), len(got), err)
		}
		r.empty(what)
	}
	r.define(profiles[3].index, append([]byte{0x10, 0x01, 0, 0, 0, 0x10, 0x02}, cert...), true, nil)
	check("as of a TPM 1.2", cert)
	both := append(bytes.Clone(other), root...)
	r.define(firstChain, both[:700], true, nil) // in the midst of one
	r.define(firstChain+1, append(both[700:len(both):len(both)], make([]byte, 20)...), true, nil)
	check("with issuers", cert, other, root)
	ecc := r.ekCert(profiles[0].public)
	r.define(profiles[0].index, append(bytes.Clone(ecc), bytes.Repeat([]byte{0xff}, 50)...), true, nil)
	check("padded, on a curve", ecc, other, root)
	r.define(profiles[1].index, []byte("no certificate"), true, nil)
	check("beside nonsense", ecc, other, root)

	file := filepath.Join(r.dir, ekFile)
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), ca.PEM(r.maker.Root.Certificate)...)
	for content, want := range map[string]error{
		string(text): nil, "": ErrDamaged, "-----BEGIN KEY-----\nAAAA\n-----END KEY-----\n": ErrDamaged, strings.Repeat("x", maxFile+1): ErrDamaged,
	} {
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if want == nil {
			check("a file", cert, root)
		} else if _, _, err := h.EKCertificate(); !errors.Is(err, want) {
			t.Errorf("file of %.20q: %v, want %v", content, err, want)
		}
	}
}

// TestEKOfItsOwn: a maker may have made the key from another template, or have given a
// nonce for it, and have kept it in the TPM; and a certificate may be another TPM's.
func TestEKOfItsOwn(t *testing.T) {
	p := profiles[0]
	nonce := []byte("nonce")
	with := p.public
	with.Unique = must(uniqueOf(tpm2.TPMAlgECC, nonce))(t)
	own := with
	own.ObjectAttributes.NoDA = true
	for name, tc := range map[string]struct {
		made       tpm2.TPMTPublic
		nonce      []byte
		template   []byte
		persistent bool
		want       error
	}{
		"nonce":                 {made: with, nonce: nonce},
		"template and nonce":    {made: own, nonce: nonce, template: tpm2.Marshal(own)},
		"template with a nonce": {made: own, template: tpm2.Marshal(own)},
		"persistent":            {made: own, persistent: true},
		"of another TPM":        {made: own, want: ErrOtherTPM},
		"no template":           {made: own, template: []byte("no template"), want: ErrTPM},
		"too long a nonce":      {made: own, nonce: make([]byte, 33), want: ErrTPM},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.define(p.index, r.ekCert(tc.made), true, nil)
			if tc.nonce != nil {
				r.define(p.nonce, tc.nonce, true, nil)
			}
			if tc.template != nil {
				r.define(p.template, tc.template, true, nil)
			}
			if tc.persistent {
				ek := r.tpm.EK(tc.made)
				_, err := tpm2.EvictControl{
					Auth:         tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
					ObjectHandle: &tpm2.NamedHandle{Handle: ek.Handle, Name: ek.Name}, PersistentHandle: 0x81010001,
				}.Execute(r.tpm)
				if err != nil {
					t.Fatal(err)
				}
				r.tpm.Flush(ek)
			}
			h := r.open(Options{})
			blob, seed := credential(t, r, tc.made, h.key.name.Buffer, []byte("secret"))
			got, err := h.Activate(blob, seed)
			if tc.want != nil {
				if !errors.Is(err, tc.want) {
					t.Errorf("%v, want %v", err, tc.want)
				}
			} else if err != nil || string(got) != "secret" {
				t.Errorf("%q, %v", got, err)
			}
			r.empty("at the end")
		})
	}
}
