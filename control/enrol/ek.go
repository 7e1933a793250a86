// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/google/go-attestation/attest"

	"hwvtpm/control/ca"
)

// EK is an endorsement key whose certificate was verified.
type EK struct {
	Certificate *x509.Certificate
	Key         crypto.PublicKey
	Hash        string // KeyHash of it

	// Of a vTPM's, from the chain.
	VM, Coprocessor, Host string
	CardKey               string // KeyHash of the card's
	HostSerial            string // of the host's AIK certificate
}

// KeyHash is how keys are named in lists and policy: the SHA-256 of the
// SubjectPublicKeyInfo, hexadecimal.
func KeyHash(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}

// SerialText is a certificate's serial as records and lists have it.
func SerialText(c *x509.Certificate) string { return c.SerialNumber.Text(16) }

const (
	maxCertificate = 8192 // bytes of one; real ones have about 1000
	maxChain       = 8    // certificates beside the EK's
)

// parseCertificates reads an EK certificate as TPMs have it in NV (with the TCG's
// prefix, or padded), and its chain.
func parseCertificates(der []byte, chain [][]byte) (*x509.Certificate, []*x509.Certificate, error) {
	if len(der) > maxCertificate || len(chain) > maxChain {
		return nil, nil, fmt.Errorf("%w: an EK certificate of %d bytes with %d others", ErrRequest, len(der), len(chain))
	}
	cert, err := attest.ParseEKCertificate(der)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: EK certificate: %w", ErrRequest, err)
	}
	var others []*x509.Certificate
	for _, raw := range chain {
		if len(raw) > maxCertificate {
			return nil, nil, fmt.Errorf("%w: a certificate of %d bytes", ErrRequest, len(raw))
		}
		c, err := x509.ParseCertificate(raw)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: EK certificate's chain: %w", ErrRequest, err)
		}
		others = append(others, c)
	}
	return cert, others, nil
}

// newEK checks the certificate itself, not its chain.
func newEK(cert *x509.Certificate) (*EK, error) {
	if err := ca.IsEK(cert); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	key, err := endorsementKey(cert)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	if _, err := ekTemplate(key); err != nil {
		return nil, err
	}
	return &EK{Certificate: cert, Key: key, Hash: KeyHash(cert.RawSubjectPublicKeyInfo)}, nil
}

// oidRSAOAEP marks a key for RSAES-OAEP only (RFC 4055, 1.2): some makers' EK
// certificates have it, and crypto/x509 leaves their key unread.
var oidRSAOAEP = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 7}

func endorsementKey(cert *x509.Certificate) (crypto.PublicKey, error) {
	switch key := cert.PublicKey.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey:
		return key, nil
	}
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(cert.RawSubjectPublicKeyInfo, &info); err != nil || !info.Algorithm.Algorithm.Equal(oidRSAOAEP) {
		return nil, fmt.Errorf("an endorsement key of unknown type")
	}
	return x509.ParsePKCS1PublicKey(info.Key.RightAlign())
}

// hostEK verifies that a maker whom we know vouches for a TPM.
func hostEK(cert *x509.Certificate, others []*x509.Certificate, m *Manufacturers, now time.Time) (*EK, error) {
	ek, err := newEK(cert)
	if err != nil {
		return nil, err
	}
	if err := m.verify(cert, others, now); err != nil {
		return nil, fmt.Errorf("%w: the EK certificate: %w", ErrRequest, err)
	}
	return ek, nil
}

// vtpmEK verifies that a vTPM's EK hangs on our root by a card and a host.
func vtpmEK(cert *x509.Certificate, others []*x509.Certificate, a *ca.Authority, now time.Time) (*EK, error) {
	ek, err := newEK(cert)
	if err != nil {
		return nil, err
	}
	chain, err := ca.Verify(cert, append(others, a.Attestation.Certificate), a.Roots(), now)
	if err != nil {
		return nil, fmt.Errorf("%w: the EK certificate: %w", ErrRequest, err)
	}
	if len(chain) != 5 || !ca.Same(chain[3], a.Attestation.Certificate) {
		return nil, fmt.Errorf("%w: the EK certificate is not from a card on a host of ours", ErrRequest)
	}
	if ek.VM, err = ca.IsVTPMEK(chain[0]); err != nil {
		return nil, fmt.Errorf("%w: the EK certificate: %w", ErrRequest, err)
	}
	if ek.Coprocessor, err = ca.IsCoprocessorAIK(chain[1]); err != nil {
		return nil, fmt.Errorf("%w: the card's certificate: %w", ErrRequest, err)
	}
	if ek.Host, err = ca.IsHostAIK(chain[2]); err != nil {
		return nil, fmt.Errorf("%w: the host's certificate: %w", ErrRequest, err)
	}
	ek.CardKey, ek.HostSerial = KeyHash(chain[1].RawSubjectPublicKeyInfo), SerialText(chain[2])
	return ek, nil
}

// curves are the NIST curves of the profile, by their bits.
var curves = map[elliptic.Curve]int{elliptic.P256(): 256, elliptic.P384(): 384, elliptic.P521(): 521}
