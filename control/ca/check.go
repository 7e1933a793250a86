// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"
	"time"
)

// IsHostAIK gives the host that a certificate of the profile speaks of.
func IsHostAIK(cert *x509.Certificate) (host string, err error) {
	if err := checkAIK(cert, 1); err != nil {
		return "", err
	}
	return subject(cert, KindHost)
}

// IsCoprocessorAIK gives the serial of the card that a certificate of the profile
// speaks of.
func IsCoprocessorAIK(cert *x509.Certificate) (serial string, err error) {
	if err := checkAIK(cert, 0); err != nil {
		return "", err
	}
	return subject(cert, KindCoprocessor)
}

// IsVTPMAIK gives the machine that a certificate of the profile speaks of.
func IsVTPMAIK(cert *x509.Certificate) (vm string, err error) {
	if err := checkAIK(cert, -1); err != nil {
		return "", err
	}
	return subject(cert, KindVM)
}

// checkAIK checks what attestation keys' certificates have in common. pathLen is
// that of a key that issues certificates, or negative.
func checkAIK(cert *x509.Certificate, pathLen int) error {
	usage := x509.KeyUsageDigitalSignature
	if pathLen >= 0 {
		usage |= x509.KeyUsageCertSign
	}
	switch {
	case !onlyUsage(cert, OIDAIKCertificate):
		return fmt.Errorf("%w: not an attestation key's", ErrProfile)
	case cert.KeyUsage != usage:
		return fmt.Errorf("%w: key usage %v, want %v", ErrProfile, cert.KeyUsage, usage)
	case !cert.BasicConstraintsValid || cert.IsCA != (pathLen >= 0):
		return fmt.Errorf("%w: it may issue certificates: %v", ErrProfile, cert.IsCA)
	case pathLen >= 0 && (cert.MaxPathLen != pathLen || (pathLen == 0) != cert.MaxPathLenZero):
		return fmt.Errorf("%w: path length %d, want %d", ErrProfile, cert.MaxPathLen, pathLen)
	}
	return nil
}

// IsEK checks that a certificate is of an endorsement key: any TPM's, so that the
// TCG's usage must be among those it has, and it issues nothing.
func IsEK(cert *x509.Certificate) error {
	has := func(oid asn1.ObjectIdentifier) bool { return oid.Equal(OIDEKCertificate) }
	switch {
	case cert.IsCA:
		return fmt.Errorf("%w: an endorsement key issues nothing", ErrProfile)
	case !slices.ContainsFunc(cert.UnknownExtKeyUsage, has):
		return fmt.Errorf("%w: not an endorsement key's", ErrProfile)
	case cert.KeyUsage&(x509.KeyUsageKeyEncipherment|x509.KeyUsageKeyAgreement) == 0:
		return fmt.Errorf("%w: its key may not encrypt", ErrProfile)
	}
	return nil
}

// IsVTPMEK gives the machine of an endorsement key's certificate of our profile.
func IsVTPMEK(cert *x509.Certificate) (vm string, err error) {
	if err := IsEK(cert); err != nil {
		return "", err
	}
	if !onlyUsage(cert, OIDEKCertificate) {
		return "", fmt.Errorf("%w: it has usages beside an endorsement key's", ErrProfile)
	}
	return subject(cert, KindVM)
}

// onlyUsage says whether a certificate has this extended key usage and no other.
func onlyUsage(cert *x509.Certificate, oid asn1.ObjectIdentifier) bool {
	return len(cert.ExtKeyUsage) == 0 && len(cert.UnknownExtKeyUsage) == 1 && cert.UnknownExtKeyUsage[0].Equal(oid)
}

// Verify builds a chain from cert through others to one of the roots and gives
// it, cert first. Usages are for the profile's checks to judge. The names of a
// TPM, which are critical and which crypto/x509 can't read, are let pass.
func Verify(cert *x509.Certificate, others []*x509.Certificate, roots *x509.CertPool, now time.Time) ([]*x509.Certificate, error) {
	pool := x509.NewCertPool()
	for _, c := range others {
		pool.AddCert(c)
	}
	known := *cert
	known.UnhandledCriticalExtensions = slices.DeleteFunc(slices.Clone(cert.UnhandledCriticalExtensions), oidSubjectAltName.Equal)
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
