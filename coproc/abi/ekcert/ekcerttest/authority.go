// SPDX-License-Identifier: Apache-2.0

package ekcerttest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"testing"
	"time"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/abi/ekcert"
)

// Authority issues certificates of cards.
type Authority struct {
	Root, Attestation, Host *x509.Certificate
	hostKey                 crypto.Signer
}

// New makes an authority.
func New(t testing.TB) *Authority {
	t.Helper()
	now := time.Now()
	top := func(name string, pathLen int) *x509.Certificate {
		c := ekcert.Base(name, ekcert.Validity{Now: now, Life: 24 * time.Hour})
		c.IsCA, c.MaxPathLen, c.KeyUsage = true, pathLen, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
		return c
	}
	rootKey, attestationKey := newKey(t), newKey(t)
	a := &Authority{hostKey: newKey(t)}
	root := top("test root", 3)
	a.Root = Issue(t, root, root, rootKey.Public(), rootKey)
	a.Attestation = Issue(t, top("test attestation", 2), a.Root, attestationKey.Public(), rootKey)
	host, err := ekcert.AIK(ekcert.KindHost, "host-1", 1, ekcert.Validity{Now: now, Life: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	a.Host = Issue(t, host, a.Attestation, a.hostKey.Public(), attestationKey)
	return a
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Issue signs a template.
func Issue(t testing.TB, template, issuer *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// Certify has the host certify the key of a card, a SubjectPublicKeyInfo, with a
// template that change may change. It gives what the card is to be given: its
// certificate, the host's, the attestation authority's.
func (a *Authority) Certify(t testing.TB, spki []byte, change func(*x509.Certificate)) [][]byte {
	t.Helper()
	serial := abi.SerialOf(spki)
	template, err := ekcert.CoprocessorAIK(hex.EncodeToString(serial[:]), ekcert.Validity{Now: time.Now(), Life: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(template)
	}
	pub, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		t.Fatal(err)
	}
	card := Issue(t, template, a.Host, pub, a.hostKey)
	return [][]byte{card.Raw, a.Host.Raw, a.Attestation.Raw}
}

// Verify verifies the certificate of an endorsement key through a chain, DER one
// after the other, to the root, and gives it with the name of its machine.
func (a *Authority) Verify(t testing.TB, der, chain []byte) (ek *x509.Certificate, vm string) {
	t.Helper()
	ek, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	others, err := x509.ParseCertificates(chain)
	if err != nil {
		t.Fatal(err)
	}
	roots, pool := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(a.Root)
	for _, c := range others {
		pool.AddCert(c)
	}
	known := *ek
	known.UnhandledCriticalExtensions = nil // the SAN's: see ekcert.OIDSubjectAltName
	if _, err := known.Verify(x509.VerifyOptions{Roots: roots, Intermediates: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		t.Error(err)
	}
	if vm, err = ekcert.IsVTPMEK(ek); err != nil {
		t.Error(err)
	}
	return ek, vm
}
