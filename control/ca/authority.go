// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Names of the authority's own certificates, of their keys and files.
const (
	NameRoot        = "root"
	NameAttestation = "attestation"
	NameService     = "service"
)

// Lives of the authority's own certificates. What they issue is short-lived.
const (
	rootLife         = 20 * 365 * 24 * time.Hour
	intermediateLife = 10 * 365 * 24 * time.Hour
)

// Authority is a root with its intermediates. It is immutable.
type Authority struct {
	Root        *Issuer // Signer is nil if the root's key is elsewhere
	Attestation *Issuer
	Service     *Issuer
}

// Create makes an authority: keys, and certificates as NAME.pem in the folder
// dir, which must have none. The name becomes part of the subjects.
func Create(dir, name string, keys Keys, now time.Time) (*Authority, error) {
	if !ValidName(name) {
		return nil, fmt.Errorf("%w: %q", ErrName, name)
	}
	if _, err := os.Stat(certPath(dir, NameRoot)); err == nil {
		return nil, ErrExists
	}
	root, err := newIssuer(keys, NameRoot, authority(name+" root", 3, Validity{Now: now, Life: rootLife}), nil)
	if err != nil {
		return nil, err
	}
	a := &Authority{Root: root}
	below := Validity{Now: now, Life: intermediateLife}
	if a.Attestation, err = newIssuer(keys, NameAttestation, authority(name+" attestation", 2, below), root); err != nil {
		return nil, err
	}
	if a.Service, err = newIssuer(keys, NameService, authority(name+" service", 0, below), root); err != nil {
		return nil, err
	}
	for file, i := range map[string]*Issuer{NameRoot: a.Root, NameAttestation: a.Attestation, NameService: a.Service} {
		if err := writeNew(certPath(dir, file), PEM(i.Certificate), 0o644); err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
	}
	return a, nil
}

// newIssuer makes a key and its certificate, its own parent if there is none.
func newIssuer(keys Keys, name string, t *x509.Certificate, parent *Issuer) (*Issuer, error) {
	signer, err := keys.Create(name)
	if err != nil {
		return nil, err
	}
	i := &Issuer{Signer: signer}
	if parent == nil {
		i.Certificate, err = i.sign(t, t, signer.Public())
	} else {
		i.Certificate, err = parent.Issue(t, signer.Public())
	}
	return i, err
}

func certPath(dir, name string) string { return filepath.Join(dir, name+".pem") }

// Load reads an authority that Create made, and checks that its parts belong
// together. A root without its key is fine: it may be kept elsewhere.
func Load(dir string, keys Keys, now time.Time) (*Authority, error) {
	var a Authority
	for name, i := range map[string]**Issuer{NameRoot: &a.Root, NameAttestation: &a.Attestation, NameService: &a.Service} {
		loaded, err := loadIssuer(dir, name, keys)
		if err != nil {
			return nil, err
		}
		*i = loaded
	}
	for _, i := range []*Issuer{a.Attestation, a.Service} {
		if _, err := Verify(i.Certificate, nil, a.Roots(), now); err != nil {
			return nil, err
		}
	}
	return &a, nil
}

func loadIssuer(dir, name string, keys Keys) (*Issuer, error) {
	text, err := os.ReadFile(certPath(dir, name))
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	certs, err := ParsePEM(text)
	if err != nil {
		return nil, fmt.Errorf("ca: %s.pem: %w", name, err)
	}
	if len(certs) != 1 {
		return nil, fmt.Errorf("ca: %s.pem has %d certificates, not one", name, len(certs))
	}
	i := &Issuer{Certificate: certs[0]}
	signer, err := keys.Open(name)
	if name == NameRoot && errors.Is(err, fs.ErrNotExist) {
		return i, nil
	} else if err != nil {
		return nil, err
	}
	if pub, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(i.Certificate.PublicKey) {
		return nil, fmt.Errorf("ca: the key %s is not that of its certificate", name)
	}
	i.Signer = signer
	return i, nil
}

// Roots is the root as a pool.
func (a *Authority) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.Root.Certificate)
	return pool
}

// Issuer is the issuer of a name.
func (a *Authority) Issuer(name string) (*Issuer, error) {
	switch name {
	case NameRoot:
		if a.Root.Signer == nil {
			return nil, ErrNoRootKey
		}
		return a.Root, nil
	case NameAttestation:
		return a.Attestation, nil
	case NameService:
		return a.Service, nil
	}
	return nil, fmt.Errorf("ca: no issuer is called %q", name)
}

// ServerCertificate makes a key, which stays in memory, and issues a certificate
// for the server under DNS names and addresses.
func (a *Authority) ServerCertificate(names []string, v Validity) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("ca: server key: %w", err)
	}
	cert, err := a.Service.Issue(tlsServer(names, v), key.Public())
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{cert.Raw, a.Service.Certificate.Raw}, PrivateKey: key, Leaf: cert}, nil
}

const pemCertificate = "CERTIFICATE"

// PEM encodes certificates one after the other.
func PEM(certs ...*x509.Certificate) []byte {
	var text []byte
	for _, c := range certs {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: c.Raw})...)
	}
	return text
}

// ParsePEM reads all certificates of a text; other blocks are an error.
func ParsePEM(text []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return certs, nil
		}
		if block.Type != pemCertificate {
			return nil, fmt.Errorf("ca: a %s among certificates", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		certs, text = append(certs, c), rest
	}
}
