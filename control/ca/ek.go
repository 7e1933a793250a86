// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto"
	"crypto/x509"

	"hwvtpm/coproc/abi/ekcert"
)

// Object identifiers of the TCG for the extended key usages of the chain.
var (
	OIDEKCertificate  = ekcert.OIDEKCertificate  // tcg-kp-EKCertificate
	OIDAIKCertificate = ekcert.OIDAIKCertificate // tcg-kp-AIKCertificate
)

// Model says what kind of TPM an EK certificate speaks of.
type Model = ekcert.Model

// VTPMEK is the template for a vTPM's endorsement key. The card's AIK signs it:
// see package ekcert.
func VTPMEK(vm string, m Model, key crypto.PublicKey, v Validity) (*x509.Certificate, error) {
	return ekcert.VTPMEK(vm, m, key, v)
}

// CoprocessorAIK is the template for the attestation key of a card: see package
// ekcert.
func CoprocessorAIK(serial string, v Validity) (*x509.Certificate, error) {
	return ekcert.CoprocessorAIK(serial, v)
}

// IsCoprocessorAIK gives the serial of the card that a certificate of the profile
// speaks of.
func IsCoprocessorAIK(cert *x509.Certificate) (serial string, err error) {
	return ekcert.IsCoprocessorAIK(cert)
}

// IsEK checks that a certificate is of an endorsement key: any TPM's.
func IsEK(cert *x509.Certificate) error { return ekcert.IsEK(cert) }

// IsVTPMEK gives the machine of an endorsement key's certificate of our profile.
func IsVTPMEK(cert *x509.Certificate) (vm string, err error) { return ekcert.IsVTPMEK(cert) }
