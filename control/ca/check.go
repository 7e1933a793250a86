// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"hwvtpm/coproc/abi/ekcert"
)

// IsHostAIK gives the host that a certificate of the profile speaks of.
func IsHostAIK(cert *x509.Certificate) (host string, err error) {
	if err := ekcert.CheckAIK(cert, 1); err != nil {
		return "", err
	}
	return ekcert.Subject(cert, KindHost)
}

// IsVTPMAIK gives the machine that a certificate of the profile speaks of.
func IsVTPMAIK(cert *x509.Certificate) (vm string, err error) {
	if err := ekcert.CheckAIK(cert, -1); err != nil {
		return "", err
	}
	return ekcert.Subject(cert, KindVM)
}

// Verify builds a chain from cert through others to one of the roots and gives
// it, cert first. Usages are for the profile's checks to judge. The names of a
// TPM, which are critical and which crypto/x509 can't read, are let pass. Certificates
// may be anybody's: those with keys of absurd size are ErrProfile.
func Verify(cert *x509.Certificate, others []*x509.Certificate, roots *x509.CertPool, now time.Time) ([]*x509.Certificate, error) {
	if err := errors.Join(ekcert.CheckEffort(cert), ekcert.CheckEffort(others...)); err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	pool := x509.NewCertPool()
	for _, c := range others {
		pool.AddCert(c)
	}
	known := *cert
	known.UnhandledCriticalExtensions = slices.DeleteFunc(slices.Clone(cert.UnhandledCriticalExtensions), ekcert.OIDSubjectAltName.Equal)
	chains, err := known.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: pool, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	chain := slices.Clone(chains[0])
	chain[0] = cert
	return chain, nil
}

// Same says whether two certificates are the same bytes.
func Same(a, b *x509.Certificate) bool { return bytes.Equal(a.Raw, b.Raw) }
