// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto/x509"
	"fmt"
	"net"

	"hwvtpm/coproc/abi/ekcert"
)

// Skew is how much the clocks of those who read a certificate may be behind.
const Skew = ekcert.Skew

// Validity is when a certificate is good: from a little before Now for Life.
type Validity = ekcert.Validity

// authority is the template of a certificate that signs certificates and lists.
func authority(name string, pathLen int, v Validity) *x509.Certificate {
	t := ekcert.Base(name, v)
	t.IsCA, t.MaxPathLen, t.MaxPathLenZero = true, pathLen, pathLen == 0
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	return t
}

// HostAIK is the template for the attestation key in a host's TPM, which issues
// those of the host's cards.
func HostAIK(host string, v Validity) (*x509.Certificate, error) {
	return ekcert.AIK(KindHost, host, 1, v)
}

// VTPMAIK is the template for an attestation key in a machine's vTPM.
func VTPMAIK(vm string, v Validity) (*x509.Certificate, error) {
	return ekcert.AIK(KindVM, vm, -1, v)
}

// tlsServer is the template for the control server itself: DNS names, addresses.
func tlsServer(names []string, v Validity) *x509.Certificate {
	t := ekcert.Base("vtpm-control", v)
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
	uri, err := ekcert.URN(KindHost, host)
	if err != nil {
		return nil, err
	}
	t := ekcert.Base(host, v)
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
	return ekcert.Subject(cert, KindHost)
}
