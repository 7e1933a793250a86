// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net"
	"time"
)

// Skew is how much the clocks of those who read a certificate may be behind.
const Skew = 5 * time.Minute

// Validity is when a certificate is good: from a little before Now for Life.
type Validity struct {
	Now  time.Time
	Life time.Duration
}

// base is what all templates have.
func base(name string, v Validity) *x509.Certificate {
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

// authority is the template of a certificate that signs certificates and lists.
func authority(name string, pathLen int, v Validity) *x509.Certificate {
	t := base(name, v)
	t.IsCA, t.MaxPathLen, t.MaxPathLenZero = true, pathLen, pathLen == 0
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	return t
}

// aik is the template of an attestation key's certificate. "TCG Infrastructure
// Working Group, A CMC Profile for AIK Certificate Enrollment", section 3.5, has
// the extended key usage.
func aik(kind Kind, name string, v Validity) (*x509.Certificate, error) {
	uri, err := urn(kind, name)
	if err != nil {
		return nil, err
	}
	t := base(name, v)
	t.URIs = append(t.URIs, uri)
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.UnknownExtKeyUsage = []asn1.ObjectIdentifier{OIDAIKCertificate}
	return t, nil
}

// HostAIK is the template for the attestation key in a host's TPM, which issues
// those of the host's cards.
func HostAIK(host string, v Validity) (*x509.Certificate, error) {
	return issuingAIK(KindHost, host, 1, v)
}

// CoprocessorAIK is the template for the attestation key of a card, which issues
// EK certificates of its vTPMs. The host's AIK signs it.
func CoprocessorAIK(serial string, v Validity) (*x509.Certificate, error) {
	return issuingAIK(KindCoprocessor, serial, 0, v)
}

func issuingAIK(kind Kind, name string, pathLen int, v Validity) (*x509.Certificate, error) {
	t, err := aik(kind, name, v)
	if err != nil {
		return nil, err
	}
	t.IsCA, t.MaxPathLen, t.MaxPathLenZero = true, pathLen, pathLen == 0
	t.KeyUsage |= x509.KeyUsageCertSign
	return t, nil
}

// VTPMAIK is the template for an attestation key in a machine's vTPM.
func VTPMAIK(vm string, v Validity) (*x509.Certificate, error) { return aik(KindVM, vm, v) }

// tlsServer is the template for the control server itself: DNS names, addresses.
func tlsServer(names []string, v Validity) *x509.Certificate {
	t := base("vtpm-control", v)
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
	return t
}

// TLSClient is the template for the key by which a host talks to the server. It
// is no attestation key, and has another issuer.
func TLSClient(host string, v Validity) (*x509.Certificate, error) {
	uri, err := urn(KindHost, host)
	if err != nil {
		return nil, err
	}
	t := base(host, v)
	t.URIs = append(t.URIs, uri)
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return t, nil
}

// IsServiceClient gives the host of a TLS client certificate of the profile.
func IsServiceClient(cert *x509.Certificate) (host string, err error) {
	if cert.IsCA || len(cert.ExtKeyUsage) != 1 || cert.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth || len(cert.UnknownExtKeyUsage) != 0 {
		return "", fmt.Errorf("%w: not a TLS client's", ErrProfile)
	}
	return subject(cert, KindHost)
}
