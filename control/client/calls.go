// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"hwvtpm/control/ca"
	"hwvtpm/control/enrol"
	"hwvtpm/vtpm/attest"
)

// Enrol asks for a challenge. The token may be empty, if the TLS key, the records
// or the operator let this TPM in.
func (c *Client) Enrol(ctx context.Context, req *enrol.Request, token string) (*enrol.Challenge, error) {
	got := &enrol.Challenge{}
	if err := c.json(ctx, []string{"v1", "enrol"}, token, req, got); err != nil {
		return nil, err
	}
	if got.ID == "" || len(got.Blob) == 0 || len(got.Secret) == 0 {
		return nil, errors.New("control server: a challenge without a credential")
	}
	return got, nil
}

// Certified is what an enrolment gives.
type Certified struct {
	AIK   *x509.Certificate
	TLS   *x509.Certificate   // of a host's TLS key, or nil
	Chain []*x509.Certificate // issuers of both, and the root
}

// Prove gives a challenge's secret for the certificate. A challenge is good for one
// try. The id may be anybody's word.
func (c *Client) Prove(ctx context.Context, id string, secret []byte) (*Certified, error) {
	if !ca.ValidName(id) {
		return nil, &Error{http.StatusNotFound, "no enrolment has this id"}
	}
	var got struct{ Certificate, TLS, Chain string }
	proof := struct {
		Secret []byte `json:"secret"`
	}{secret}
	if err := c.json(ctx, []string{"v1", "enrol", id}, "", proof, &got); err != nil {
		return nil, err
	}
	aik, err := one("certificate", got.Certificate)
	if err != nil {
		return nil, err
	}
	out := &Certified{AIK: aik}
	if got.TLS != "" {
		if out.TLS, err = one("TLS certificate", got.TLS); err != nil {
			return nil, err
		}
	}
	if out.Chain, err = ca.ParsePEM([]byte(got.Chain)); err != nil {
		return nil, fmt.Errorf("control server: chain: %w", err)
	}
	return out, nil
}

// CA gives the authority's certificates: root, attestation, service. They are as
// good as the root that the caller knew before.
func (c *Client) CA(ctx context.Context) ([]*x509.Certificate, error) {
	text, err := c.call(ctx, http.MethodGet, []string{"v1", "ca"}, "", nil)
	if err != nil {
		return nil, err
	}
	certs, err := ca.ParsePEM(text)
	if err != nil {
		return nil, fmt.Errorf("control server: %w", err)
	}
	if len(certs) == 0 {
		return nil, errors.New("control server: no certificates")
	}
	return certs, nil
}

// CRL gives an issuer's newest revocation list: ca.NameRoot, ca.NameAttestation or
// ca.NameService. Its signature is for the caller to check, who knows the issuer.
func (c *Client) CRL(ctx context.Context, issuer string) (*x509.RevocationList, error) {
	if !ca.ValidName(issuer) {
		return nil, &Error{http.StatusNotFound, "no such issuer"}
	}
	der, err := c.call(ctx, http.MethodGet, []string{"v1", "crl", issuer}, "", nil)
	if err != nil {
		return nil, err
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, fmt.Errorf("control server: %w", err)
	}
	return list, nil
}

// Verify has evidence judged by the server, with its roots and revocation lists: it is
// then the server's word. The policy may be empty.
func (c *Client) Verify(ctx context.Context, evidence json.RawMessage, nonce []byte, policy json.RawMessage) (*attest.Result, error) {
	got := &attest.Result{}
	err := c.json(ctx, []string{"v1", "verify"}, "", struct {
		Evidence json.RawMessage `json:"evidence"`
		Nonce    []byte          `json:"nonce"`
		Policy   json.RawMessage `json:"policy,omitempty"`
	}{evidence, nonce, policy}, got)
	if err != nil {
		return nil, err
	}
	return got, nil
}

// json posts a body and reads the answer.
func (c *Client) json(ctx context.Context, path []string, token string, body, into any) error {
	text, err := c.call(ctx, http.MethodPost, path, token, body)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("control server: the answer can't be read: %w", err)
	}
	return nil
}

func one(what, text string) (*x509.Certificate, error) {
	certs, err := ca.ParsePEM([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("control server: %s: %w", what, err)
	}
	if len(certs) != 1 {
		return nil, fmt.Errorf("control server: %s: %d certificates, not one", what, len(certs))
	}
	return certs[0], nil
}
