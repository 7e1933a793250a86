// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"hwvtpm/control/ca"
	"hwvtpm/internal/durable"
)

// identity is what the authority has certified for this host. It is not changed.
type identity struct {
	aik   *x509.Certificate
	above []*x509.Certificate // the AIK's issuers below the root, the nearest first
	tls   *tls.Certificate
}

// Files of an identity in Config.Dir.
const (
	fileAIK = "host.pem" // the AIK's certificate, then its issuers
	fileTLS = "tls.pem"  // the TLS key's, then its issuers
	nameTLS = "tls"      // of the key, as ca.FileKeys has it
)

// tlsKey gives the key by which the host speaks to the authority, which is made when
// it is first asked for.
func (m *Manager) tlsKey() (crypto.Signer, error) {
	keys := ca.FileKeys{Dir: m.cfg.Dir}
	key, err := keys.Open(nameTLS)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = keys.Create(nameTLS)
	}
	if err != nil {
		return nil, fmt.Errorf("TLS key: %w", err)
	}
	return key, nil
}

// certificateRequest is the PKCS#10 request for the TLS key.
func (m *Manager) certificateRequest() ([]byte, error) {
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, m.key)
	if err != nil {
		return nil, fmt.Errorf("TLS key: %w", err)
	}
	return csr, nil
}

// judge makes an identity of certificates, PEM, from wherever: they must be of this
// host, of the keys that it has, in time, and lead to a root.
func (m *Manager) judge(aik, service, chain string) (*identity, error) {
	now := m.cfg.Now()
	verified, err := m.verify(aik, chain, now)
	if err != nil {
		return nil, fmt.Errorf("certificate of the AIK: %w", err)
	}
	name, err := ca.IsHostAIK(verified[0])
	if err == nil && name != m.cfg.Name {
		err = fmt.Errorf("it is of the host %s", name)
	}
	if len(verified) < 3 {
		err = errors.Join(err, errors.New("there is no authority between it and the root"))
	}
	if err = errors.Join(err, sameKey(verified[0], m.cfg.TPM.Public())); err != nil {
		return nil, fmt.Errorf("certificate of the AIK: %w", err)
	}
	id := &identity{aik: verified[0], above: verified[1 : len(verified)-1]}
	if verified, err = m.verify(service, chain, now); err != nil {
		return nil, fmt.Errorf("TLS certificate: %w", err)
	}
	if name, err = ca.IsServiceClient(verified[0]); err == nil && name != m.cfg.Name {
		err = fmt.Errorf("it is of the host %s", name)
	}
	if err = errors.Join(err, sameKey(verified[0], m.key.Public())); err != nil {
		return nil, fmt.Errorf("TLS certificate: %w", err)
	}
	id.tls = &tls.Certificate{PrivateKey: m.key, Leaf: verified[0]}
	for _, c := range verified[:len(verified)-1] {
		id.tls.Certificate = append(id.tls.Certificate, c.Raw)
	}
	return id, nil
}

// verify builds the chain of the first certificate of text.
func (m *Manager) verify(text, chain string, now time.Time) ([]*x509.Certificate, error) {
	certs, err := ca.ParsePEM([]byte(text + chain))
	if err != nil {
		return nil, err
	}
	if len(certs) == 0 {
		return nil, errors.New("there is none")
	}
	return ca.Verify(certs[0], certs[1:], m.cfg.Roots, now)
}

func sameKey(cert *x509.Certificate, key crypto.PublicKey) error {
	if k, ok := key.(interface{ Equal(crypto.PublicKey) bool }); !ok || !k.Equal(cert.PublicKey) {
		return errors.New("it is of another key")
	}
	return nil
}

// load reads the identity that was kept. It is nil, with the reason, if there is none
// that can be used: the host then enrols as if for the first time.
func (m *Manager) load() (*identity, error) {
	aik, err := readFile(filepath.Join(m.cfg.Dir, fileAIK))
	if err != nil {
		return nil, err
	}
	service, err := readFile(filepath.Join(m.cfg.Dir, fileTLS))
	if err != nil {
		return nil, err
	}
	if len(aik) == 0 && len(service) == 0 {
		return nil, errors.New("the host has not enrolled yet")
	}
	return m.judge(string(aik), string(service), "")
}

// keep writes an identity down.
func (m *Manager) keep(id *identity) error {
	service, err := x509.ParseCertificates(joined(id.tls.Certificate))
	if err != nil {
		return err
	}
	return errors.Join(
		durable.Replace(filepath.Join(m.cfg.Dir, fileTLS), ca.PEM(service...), 0o600),
		durable.Replace(filepath.Join(m.cfg.Dir, fileAIK), ca.PEM(id.chain()...), 0o600))
}

func joined(parts [][]byte) (all []byte) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// chain is the AIK's certificate and its issuers, without the root.
func (id *identity) chain() []*x509.Certificate {
	return append([]*x509.Certificate{id.aik}, id.above...)
}

// half is when half of a certificate's life is over.
func half(c *x509.Certificate) time.Time { return c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) / 2) }

// renewal is when both certificates are to be replaced.
func (id *identity) renewal() time.Time {
	if t := half(id.tls.Leaf); t.Before(half(id.aik)) {
		return t
	}
	return half(id.aik)
}

// good says whether both certificates are in time.
func (id *identity) good(now time.Time) bool {
	return id != nil && now.Before(id.aik.NotAfter) && now.Before(id.tls.Leaf.NotAfter)
}
