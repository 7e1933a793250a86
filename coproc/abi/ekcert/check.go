// SPDX-License-Identifier: Apache-2.0

package ekcert

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"
)

// maxRSA is the size of the largest RSA key that signatures are checked with, in bits. It
// is what crypto/tls takes.
const maxRSA = 8192

// CheckEffort refuses certificates whose key costs more to check a signature with than
// any key has to: crypto/x509 has no bound, and a key of 45 KiB takes it a minute. It is
// to be asked of each certificate that comes from a stranger, before signatures are. The
// error is ErrProfile.
func CheckEffort(certs ...*x509.Certificate) error {
	for _, c := range certs {
		if key, ok := c.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > maxRSA {
			return fmt.Errorf("%w: an RSA key of %d bits, more than %d", ErrProfile, key.N.BitLen(), maxRSA)
		}
	}
	return nil
}

// IsCoprocessorAIK gives the serial of the card that a certificate of the profile
// speaks of.
func IsCoprocessorAIK(cert *x509.Certificate) (serial string, err error) {
	if err := CheckAIK(cert, 0); err != nil {
		return "", err
	}
	return Subject(cert, KindCoprocessor)
}

// CheckAIK checks what attestation keys' certificates have in common. pathLen is
// that of a key that issues certificates, or negative.
func CheckAIK(cert *x509.Certificate, pathLen int) error {
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
	return Subject(cert, KindVM)
}

// onlyUsage says whether a certificate has this extended key usage and no other.
func onlyUsage(cert *x509.Certificate, oid asn1.ObjectIdentifier) bool {
	return len(cert.ExtKeyUsage) == 0 && len(cert.UnknownExtKeyUsage) == 1 && cert.UnknownExtKeyUsage[0].Equal(oid)
}
