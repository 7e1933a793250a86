// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
)

// BesideEK writes into the template of a vTPM's AIK which endorsement key it was
// proven to live beside: ek is the SHA-256 of that key's SubjectPublicKeyInfo in
// lower-case hexadecimal. It becomes the serialNumber of the subject.
//
// Names alone do not tie the two: every host can certify an EK in any machine's name.
func BesideEK(template *x509.Certificate, ek string) error {
	if _, err := parseDigest(ek); err != nil {
		return err
	}
	template.Subject.SerialNumber = ek
	return nil
}

// EKOf gives the digest that BesideEK wrote.
func EKOf(cert *x509.Certificate) ([sha256.Size]byte, error) {
	return parseDigest(cert.Subject.SerialNumber)
}

// EKDigest is what stands for the key of an EK certificate in those of AIKs.
func EKDigest(ek *x509.Certificate) [sha256.Size]byte {
	return sha256.Sum256(ek.RawSubjectPublicKeyInfo)
}

func parseDigest(text string) ([sha256.Size]byte, error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != sha256.Size || hex.EncodeToString(b) != text {
		return [sha256.Size]byte{}, fmt.Errorf("%w: it does not say beside which endorsement key it was proven", ErrProfile)
	}
	return [sha256.Size]byte(b), nil
}
