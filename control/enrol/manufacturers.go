// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"hwvtpm/control/ca"
)

// Manufacturers are those whose word on TPMs is taken. It is immutable.
type Manufacturers struct {
	roots         *x509.CertPool
	intermediates []*x509.Certificate
	count         int
}

// LoadManufacturers reads every file of a folder: PEM with any number of
// certificates, or one in DER. Those that signed themselves are trusted; others
// only help to build chains. A folder that isn't there has none.
func LoadManufacturers(dir string) (*Manufacturers, error) {
	m := &Manufacturers{roots: x509.NewCertPool()}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("enrol: manufacturers: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("enrol: manufacturers: %w", err)
		}
		certs, err := parseAny(text)
		if err == nil && len(certs) == 0 {
			err = errors.New("no certificate")
		}
		if err != nil {
			return nil, fmt.Errorf("enrol: manufacturers: %s: %w", e.Name(), err)
		}
		for _, c := range certs {
			m.add(c)
		}
	}
	return m, nil
}

func parseAny(text []byte) ([]*x509.Certificate, error) {
	if bytes.Contains(text, []byte("-----BEGIN")) {
		return ca.ParsePEM(text)
	}
	c, err := x509.ParseCertificate(text)
	if err != nil {
		return nil, err
	}
	return []*x509.Certificate{c}, nil
}

func (m *Manufacturers) add(c *x509.Certificate) {
	if bytes.Equal(c.RawSubject, c.RawIssuer) && c.CheckSignatureFrom(c) == nil {
		m.roots.AddCert(c)
		m.count++
		return
	}
	m.intermediates = append(m.intermediates, c)
}

// Count is how many are trusted.
func (m *Manufacturers) Count() int { return m.count }

func (m *Manufacturers) verify(cert *x509.Certificate, others []*x509.Certificate, now time.Time) error {
	all := append(append([]*x509.Certificate{}, m.intermediates...), others...)
	_, err := ca.Verify(cert, all, m.roots, now)
	return err
}
