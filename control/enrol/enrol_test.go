// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"bytes"
	"crypto"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/control/audit"
	"hwvtpm/control/ca"
	"hwvtpm/control/controltest"
	"hwvtpm/control/store"
)

// A host with an EK of each kind gets the certificate of its AK, for a token.
func TestHostEnrols(t *testing.T) {
	r := newRig(t)
	tpm := controltest.StartSim(t)
	for name, template := range map[string]tpm2.TPMTPublic{
		"rsa-2048": tpm2.RSAEKTemplate, "p-256": tpm2.ECCEKTemplate, "p-384": controltest.EKP384Template(),
	} {
		t.Run(name, func(t *testing.T) {
			ek, ak := tpm.EK(template), tpm.AK(nil)
			defer tpm.Flush(ek)
			defer tpm.Flush(ak)
			who := Caller{Token: r.token(store.KindHost, name, false)}
			req := &Request{Kind: store.KindHost, Name: name, EKCertificate: r.ekCert(ek), AKPublic: ak.TPMT()}
			got, err := r.enrol(req, who, tpm, ek, ak)
			if err != nil {
				t.Fatal(err)
			}
			if host, err := ca.IsHostAIK(got.Certificate); host != name || err != nil {
				t.Errorf("certificate of %q, %v", host, err)
			}
			if !ak.Crypto.(interface{ Equal(crypto.PublicKey) bool }).Equal(got.Certificate.PublicKey) {
				t.Error("the certificate has another key")
			}
			if _, err := ca.Verify(got.Certificate, got.Chain, r.cfg.Authority.Roots(), r.now); err != nil {
				t.Error(err)
			}
			_, err = r.s.Begin(t.Context(), req, Caller{Token: who.Token})
			r.want("a token that was used", err, ErrDenied)
		})
	}
	f, err := os.Open(filepath.Join(r.dir, "audit"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if head, err := audit.Verify(f, audit.Head{}); err != nil || head.Seq != 9 {
		t.Errorf("audit log: %d lines, %v, want 3 for each", head.Seq, err)
	}
}

func TestVTPMEnrols(t *testing.T) {
	r := newRig(t)
	h := r.newHost("host-1")
	m := r.newMachine(h, "vm-1")
	got, err := r.enrol(m.request("vm-1"), Caller{Token: r.token(store.KindVTPM, "vm-1", false)}, m.tpm, m.ek, m.ak)
	if err != nil {
		t.Fatal(err)
	}
	if vm, err := ca.IsVTPMAIK(got.Certificate); vm != "vm-1" || err != nil {
		t.Errorf("certificate of %q, %v", vm, err)
	}
	if got.Certificate.IsCA {
		t.Error("a vTPM's key may issue certificates")
	}
	var v store.VM
	r.update(func(tx store.Tx) error { v, err = store.VMs.Get(tx, "vm-1"); return err })
	if v.Host != "host-1" || v.Serial != SerialText(got.Certificate) || v.AK == "" {
		t.Errorf("record %+v", v)
	}
	// Its host vouches for its own machines and no other's.
	_, err = r.enrol(m.request("vm-1"), Caller{Host: "host-1"}, m.tpm, m.ek, m.ak)
	if err != nil {
		t.Errorf("by its host: %v", err)
	}
	m2 := r.newMachine(h, "vm-2")
	_, err = r.s.Begin(t.Context(), m2.request("vm-2"), Caller{Host: "host-2"})
	r.want("by another host", err, ErrDenied)
	// Nor does a host take the name of a machine that has enrolled with another TPM.
	h2 := r.newHost("host-2")
	fake := r.newMachine(h2, "vm-1")
	_, err = r.s.Begin(t.Context(), fake.request("vm-1"), Caller{Host: "host-2"})
	r.want("a host that takes a name", err, ErrDenied)
	if _, err = r.s.Begin(t.Context(), fake.request("vm-1"), Caller{Token: r.token(store.KindVTPM, "vm-1", false)}); err != nil {
		t.Errorf("a machine that moved, by its operator: %v", err)
	}
}

// The same key in the same TPM gets a new certificate without a token, another key
// does not, and one that replaces it takes its certificates back.
func TestRenewal(t *testing.T) {
	r := newRig(t)
	h := r.newHost("host-1")
	r.now = r.now.Add(24 * time.Hour)
	renewed, err := r.enrol(h.request(r, "host-1"), r.who, h.tpm, h.ek, h.ak)
	if err != nil || !renewed.Certificate.NotAfter.After(h.aik.NotAfter) {
		t.Fatalf("renewal: %v", err)
	}
	_, err = r.s.Begin(t.Context(), h.request(r, "host-9"), Caller{Token: r.token(store.KindHost, "host-9", false)})
	r.want("a second name for one TPM", err, ErrDenied)
	old := *h
	h.ak = h.tpm.AK(nil)
	_, err = r.s.Begin(t.Context(), h.request(r, "host-1"), r.who)
	r.want("another key without a token", err, ErrDenied)
	if _, err := r.enrol(h.request(r, "host-1"), Caller{Token: r.token(store.KindHost, "host-1", false)}, h.tpm, h.ek, h.ak); err != nil {
		t.Fatal(err)
	}
	for _, serial := range []string{SerialText(h.aik), SerialText(renewed.Certificate)} {
		var c store.Certificate
		r.update(func(tx store.Tx) error { c, err = store.Certificates.Get(tx, serial); return err })
		if c.Revoked == nil || c.Revoked.Reason != int(ca.ReasonSuperseded) {
			t.Errorf("the replaced key's certificate: %+v", c.Revoked)
		}
	}
	_, err = r.s.Begin(t.Context(), old.request(r, "host-1"), r.who)
	r.want("the replaced key", err, ErrDenied)
}

// A key that is not in the EK's TPM can't get the secret out.
func TestKeyElsewhere(t *testing.T) {
	r := newRig(t)
	a, b := controltest.StartSim(t), controltest.StartSim(t)
	ekA, ekB, akB := a.EK(tpm2.ECCEKTemplate), b.EK(tpm2.ECCEKTemplate), b.AK(nil)
	who := Caller{Token: r.token(store.KindHost, "h", true)}
	c, err := r.s.Begin(t.Context(), &Request{Kind: store.KindHost, Name: "h", EKCertificate: r.ekCert(ekA), AKPublic: akB.TPMT()}, who)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Activate(ekB, akB, c.Blob, c.Secret); err == nil {
		t.Error("the key's TPM opened a credential for another EK")
	}
	if _, err := a.Activate(ekA, a.AK(nil), c.Blob, c.Secret); err == nil {
		t.Error("the EK's TPM opened a credential for another key")
	}
	if _, err := a.Activate(ekA, a.LoadPublic(akB), c.Blob, c.Secret); err == nil {
		t.Error("the EK's TPM opened it for the public half of a key")
	}
	_, err = r.s.Finish(t.Context(), c.ID, bytes.Repeat([]byte{0}, 32), who)
	r.want("a guess", err, ErrProof)
}

// A challenge is good for one try, right or wrong, and not for long.
func TestChallengeOnce(t *testing.T) {
	r := newRig(t)
	h := r.newHost("host-1")
	begin := func() (*Challenge, []byte) {
		c, err := r.s.Begin(t.Context(), h.request(r, "host-1"), r.who)
		if err != nil {
			t.Fatal(err)
		}
		secret, err := h.tpm.Activate(h.ek, h.ak, c.Blob, c.Secret)
		if err != nil {
			t.Fatal(err)
		}
		return c, secret
	}
	finish := func(id string, secret []byte) error {
		_, err := r.s.Finish(t.Context(), id, secret, r.who)
		return err
	}
	c, secret := begin()
	r.want("wrong secret", finish(c.ID, secret[:31]), ErrProof)
	r.want("right secret after a wrong one", finish(c.ID, secret), ErrProof)
	c, secret = begin()
	if err := finish(c.ID, secret); err != nil {
		t.Fatal(err)
	}
	r.want("replay", finish(c.ID, secret), ErrProof)
	for _, id := range []string{"", "x", c.ID + "0", "00000000000000000000000000000000"} {
		r.want("unknown id", finish(id, secret), ErrProof)
	}
	c, secret = begin()
	other, _ := begin()
	r.want("secret of another challenge", finish(other.ID, secret), ErrProof)
	r.now = r.now.Add(r.cfg.ChallengeLife + time.Second)
	r.want("late", finish(c.ID, secret), ErrProof)
}

// Policy is asked again when a challenge is met.
func TestJudgedTwice(t *testing.T) {
	r := newRig(t)
	h := r.newHost("host-1")
	m := r.newMachine(h, "vm-1")
	who := Caller{Token: r.token(store.KindVTPM, "vm-1", false)}
	for what, change := range map[string]func(tx store.Tx) error{
		"token taken back": func(tx store.Tx) error { return store.Tokens.Delete(tx, TokenHash(who.Token)) },
		"EK kept out": func(tx store.Tx) error {
			return store.Denied.Put(tx, KeyHash(m.cert.RawSubjectPublicKeyInfo), store.Deny{Reason: "lost"})
		},
		"host revoked": func(tx store.Tx) error {
			c, err := store.Certificates.Get(tx, SerialText(h.aik))
			c.Revoked = &store.Revocation{Time: r.now}
			if err == nil {
				err = store.Certificates.Put(tx, c.Serial, c)
			}
			return err
		},
	} {
		backup := r.s
		c, err := r.s.Begin(t.Context(), m.request("vm-1"), who)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		secret, err := m.tpm.Activate(m.ek, m.ak, c.Blob, c.Secret)
		if err != nil {
			t.Fatal(err)
		}
		r.s = New(withStore(r.cfg, &changed{Store: r.cfg.Store, change: change}))
		_, err = r.s.Finish(t.Context(), c.ID, secret, who)
		r.want(what, err, ErrDenied)
		r.s = backup
	}
}
