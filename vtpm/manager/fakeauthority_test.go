// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"testing"
	"time"

	"hwvtpm/control/ca"
)

// Lives of the fake authority's certificates.
const (
	hostLife = 30 * 24 * time.Hour
	vtpmLife = 7 * 24 * time.Hour
)

// fakeAuthority certifies whom it is told to, and proves nothing: the secret of a
// challenge is its two parts.
type fakeAuthority struct {
	t   testing.TB
	ca  *ca.Authority
	tpm *fakeTPM

	mu       sync.Mutex // guards what follows
	err      error      // for everything
	tokens   []string   // good once
	knows    bool       // the host: by its records it may renew
	asked    []Enrolment
	waiting  map[string]*Enrolment
	revoked  []*big.Int
	machines map[string]crypto.PublicKey // attestation keys
}

func newFakeAuthority(t testing.TB, tpm *fakeTPM) *fakeAuthority {
	dir := t.TempDir()
	a := must(ca.Create(dir, "test", ca.FileKeys{Dir: dir}, time.Now()))
	return &fakeAuthority{t: t, ca: a, tpm: tpm, tokens: []string{"token"}, waiting: map[string]*Enrolment{}, machines: map[string]crypto.PublicKey{}}
}

func (f *fakeAuthority) set(change func(f *fakeAuthority)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

// count gives how often it was asked by a kind, and the tokens that were shown.
func (f *fakeAuthority) count(kind string) (n int, tokens []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.asked {
		if r.Kind == kind {
			n++
			if r.Token != "" {
				tokens = append(tokens, r.Token)
			}
		}
	}
	return n, tokens
}

// Enrol implements Authority.
func (f *fakeAuthority) Enrol(_ context.Context, r *Enrolment) (*Challenge, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, *r)
	if f.err != nil {
		return nil, f.err
	}
	if r.Kind == KindHost {
		i := slices.Index(f.tokens, r.Token)
		switch {
		case r.Token != "" && i < 0:
			return nil, fmt.Errorf("%w: a wrong token", ErrRefused)
		case r.Token != "":
			f.tokens = slices.Delete(f.tokens, i, i+1)
		case !f.knows:
			return nil, fmt.Errorf("%w: nobody let this host in", ErrRefused)
		}
	} else if r.TLS == nil || slices.ContainsFunc(f.revoked, func(n *big.Int) bool { return n.Cmp(r.TLS.Leaf.SerialNumber) == 0 }) {
		return nil, fmt.Errorf("%w: 401", ErrRevoked)
	}
	id := fmt.Sprint("c", len(f.asked))
	f.waiting[id] = r
	return &Challenge{ID: id, Blob: []byte("blob"), Secret: []byte("secret")}, nil
}

// Prove implements Authority.
func (f *fakeAuthority) Prove(_ context.Context, p *Proof) (*Certified, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.waiting[p.ID]
	delete(f.waiting, p.ID)
	if f.err != nil {
		return nil, f.err
	}
	if r == nil || string(p.Secret) != "blobsecret" {
		return nil, fmt.Errorf("%w: no proof", ErrRefused)
	}
	if r.Kind == KindVTPM {
		ek, err := x509.ParseCertificate(r.EKCertificate)
		if err != nil {
			return nil, err
		}
		cert := f.vtpmAIK(r.Name, f.machines[r.Name], ek.PublicKey)
		return &Certified{Certificate: string(ca.PEM(cert)), Chain: f.pem()}, nil
	}
	f.knows = true
	csr, err := x509.ParseCertificateRequest(r.CSR)
	if err != nil {
		return nil, err
	}
	v := ca.Validity{Now: time.Now(), Life: hostLife}
	aik := f.issue(f.ca.Attestation, f.tpm.Public())(ca.HostAIK(r.Name, v))
	tls := f.issue(f.ca.Service, csr.PublicKey)(ca.TLSClient(r.Name, v))
	return &Certified{Certificate: string(ca.PEM(aik)), TLS: string(ca.PEM(tls)), Chain: f.pem()}, nil
}

func (f *fakeAuthority) pem() string {
	return string(ca.PEM(f.ca.Attestation.Certificate, f.ca.Root.Certificate, f.ca.Service.Certificate))
}

func (f *fakeAuthority) issue(issuer *ca.Issuer, key crypto.PublicKey) func(*x509.Certificate, error) *x509.Certificate {
	return func(template *x509.Certificate, err error) *x509.Certificate {
		f.t.Helper()
		return must(issuer.Issue(must(template, err), key))
	}
}

// vtpmAIK certifies a machine's attestation key beside an endorsement key.
func (f *fakeAuthority) vtpmAIK(name string, aik, ek crypto.PublicKey) *x509.Certificate {
	template := must(ca.VTPMAIK(name, ca.Validity{Now: time.Now(), Life: vtpmLife}))
	digest := ca.EKDigest(&x509.Certificate{RawSubjectPublicKeyInfo: spki(f.t, ek)})
	if err := ca.BesideEK(template, hex.EncodeToString(digest[:])); err != nil {
		f.t.Fatal(err)
	}
	return f.issue(f.ca.Attestation, aik)(template, nil)
}

// CRL implements Authority.
func (f *fakeAuthority) CRL(context.Context) (*x509.RevocationList, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	var entries []ca.Revoked
	for _, n := range f.revoked {
		entries = append(entries, ca.Revoked{Serial: n, Time: time.Now()})
	}
	der, err := f.ca.Attestation.RevocationList(1, entries, ca.Validity{Now: time.Now(), Life: time.Hour})
	if err != nil {
		return nil, err
	}
	return x509.ParseRevocationList(der)
}
