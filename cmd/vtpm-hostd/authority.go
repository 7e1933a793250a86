// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"hwvtpm/control/ca"
	"hwvtpm/control/client"
	"hwvtpm/control/enrol"
	"hwvtpm/vtpm/manager"
)

// authority is the control server, as the manager asks it.
type authority struct {
	url   string
	roots *x509.CertPool

	mu      sync.Mutex // guards what follows
	clients map[*tls.Certificate]*client.Client
}

var _ manager.Authority = (*authority)(nil)

// newAuthority does not connect.
func newAuthority(url string, roots *x509.CertPool) (*authority, error) {
	a := &authority{url: url, roots: roots, clients: map[*tls.Certificate]*client.Client{}}
	_, err := a.client(nil)
	return a, err
}

// client gives a client with connections that show this certificate, and no other
// one's. Those of the host's certificate before are dropped.
func (a *authority) client(cert *tls.Certificate) (*client.Client, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.clients[cert]; c != nil {
		return c, nil
	}
	cfg := client.Config{URL: a.url, Roots: a.roots}
	if cert != nil {
		cfg.Certificate = func() (*tls.Certificate, error) { return cert, nil }
	}
	c, err := client.New(cfg)
	if err != nil {
		return nil, err
	}
	for other, old := range a.clients {
		if other != nil && cert != nil {
			delete(a.clients, other)
			old.Close()
		}
	}
	a.clients[cert] = c
	return c, nil
}

// Enrol implements manager.Authority.
func (a *authority) Enrol(ctx context.Context, r *manager.Enrolment) (*manager.Challenge, error) {
	c, err := a.client(r.TLS)
	if err != nil {
		return nil, err
	}
	got, err := c.Enrol(ctx, &enrol.Request{
		Kind: r.Kind, Name: r.Name, EKCertificate: r.EKCertificate, EKChain: r.EKChain, AKPublic: r.AKPublic, CSR: r.CSR,
	}, r.Token)
	if err != nil {
		return nil, refused(err)
	}
	return &manager.Challenge{ID: got.ID, Blob: got.Blob, Secret: got.Secret}, nil
}

// Prove implements manager.Authority.
func (a *authority) Prove(ctx context.Context, p *manager.Proof) (*manager.Certified, error) {
	c, err := a.client(p.TLS)
	if err != nil {
		return nil, err
	}
	got, err := c.Prove(ctx, p.ID, p.Secret)
	if err != nil {
		return nil, refused(err)
	}
	out := &manager.Certified{Certificate: string(ca.PEM(got.AIK)), Chain: string(ca.PEM(got.Chain...))}
	if got.TLS != nil {
		out.TLS = string(ca.PEM(got.TLS))
	}
	return out, nil
}

// CRL implements manager.Authority.
func (a *authority) CRL(ctx context.Context) (*x509.RevocationList, error) {
	c, err := a.client(nil)
	if err != nil {
		return nil, err
	}
	return c.CRL(ctx, ca.NameAttestation)
}

// refused tells what the server does not want from what it cannot do now.
func refused(err error) error {
	e, ok := errors.AsType[*client.Error](err)
	switch {
	case ok && e.Status == http.StatusTooManyRequests:
		return fmt.Errorf("%w: %w", manager.ErrBusy, err)
	case !ok || e.Temporary():
		return err
	case e.Status == http.StatusUnauthorized:
		return fmt.Errorf("%w: %w", manager.ErrRevoked, err)
	}
	return fmt.Errorf("%w: %w", manager.ErrRefused, err)
}
