// SPDX-License-Identifier: Apache-2.0

package ekcert

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"time"
)

// Skew is how much the clocks of those who read a certificate may be behind.
const Skew = 5 * time.Minute

// Forever is the end of a certificate that has none: RFC 5280, 4.1.2.5.
var Forever = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// Validity is when a certificate is good: from a little before Now for Life.
type Validity struct {
	Now  time.Time
	Life time.Duration
}

// Base is what all templates have.
func Base(name string, v Validity) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             v.Now.Add(-Skew).UTC(),
		NotAfter:              v.Now.Add(v.Life).UTC(),
		BasicConstraintsValid: true,
	}
}

// newSerial is 127 random bits, never zero: RFC 5280, 4.1.2.2 asks for a positive
// number of at most 20 octets.
func newSerial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b) // never fails
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b)
}

// AIK is the template of an attestation key's certificate. "TCG Infrastructure
// Working Group, A CMC Profile for AIK Certificate Enrollment", section 3.5, has
// the extended key usage. pathLen is that of a key that issues certificates, or
// negative.
func AIK(kind Kind, name string, pathLen int, v Validity) (*x509.Certificate, error) {
	uri, err := URN(kind, name)
	if err != nil {
		return nil, err
	}
	t := Base(name, v)
	t.URIs = append(t.URIs, uri)
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.UnknownExtKeyUsage = []asn1.ObjectIdentifier{OIDAIKCertificate}
	if pathLen >= 0 {
		t.IsCA, t.MaxPathLen, t.MaxPathLenZero = true, pathLen, pathLen == 0
		t.KeyUsage |= x509.KeyUsageCertSign
	}
	return t, nil
}

// CoprocessorAIK is the template for the attestation key of a card, which issues
// EK certificates of its vTPMs. The host's AIK signs it. serial is the card's, in
// lower-case hexadecimal. All certificates of a card have the same subject, so
// that a new one takes the place of the one before in chains.
func CoprocessorAIK(serial string, v Validity) (*x509.Certificate, error) {
	return AIK(KindCoprocessor, serial, 0, v)
}
