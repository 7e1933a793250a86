// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"math/big"
	"time"
)

// Issuer is a certificate with its private key. A Signer that lives in a TPM
// implements crypto.MessageSigner, and gets what it signs whole.
type Issuer struct {
	Certificate *x509.Certificate
	Signer      crypto.Signer
	CRL         string // URL of its revocation list, put into what it issues; or empty
}

// Issue signs a template for a public key. The certificate ends with its
// issuer's at the latest.
func (i *Issuer) Issue(template *x509.Certificate, key crypto.PublicKey) (*x509.Certificate, error) {
	t := *template
	if t.NotAfter.After(i.Certificate.NotAfter) {
		t.NotAfter = i.Certificate.NotAfter
	}
	if !t.NotAfter.After(t.NotBefore) {
		return nil, fmt.Errorf("ca: issue %s: the certificate of %s has ended", t.Subject, i.Certificate.Subject)
	}
	if i.CRL != "" {
		t.CRLDistributionPoints = []string{i.CRL}
	}
	return i.sign(&t, i.Certificate, key)
}

func (i *Issuer) sign(t, parent *x509.Certificate, key crypto.PublicKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key, i.Signer)
	if err != nil {
		return nil, fmt.Errorf("ca: issue %s: %w", t.Subject, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("ca: issue %s: %w", t.Subject, err)
	}
	return cert, nil
}

// Reason is why a certificate was revoked: RFC 5280, 5.3.1.
type Reason int

// The reasons that occur here.
const (
	ReasonUnspecified   Reason = 0
	ReasonKeyCompromise Reason = 1
	ReasonSuperseded    Reason = 4
	ReasonCessation     Reason = 5
)

// Revoked is an entry of a revocation list.
type Revoked struct {
	Serial *big.Int
	Time   time.Time
	Reason Reason
}

// RevocationList signs a list, DER, with a number that must grow from one list to
// the next. v.Life ends with the time by which the next one is due.
func (i *Issuer) RevocationList(number uint64, revoked []Revoked, v Validity) ([]byte, error) {
	list := &x509.RevocationList{
		Number: new(big.Int).SetUint64(number), ThisUpdate: v.Now.UTC(), NextUpdate: v.Now.Add(v.Life).UTC(),
	}
	for _, r := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: r.Serial, RevocationTime: r.Time.UTC(), ReasonCode: int(r.Reason)})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, i.Certificate, i.Signer)
	if err != nil {
		return nil, fmt.Errorf("ca: revocation list of %s: %w", i.Certificate.Subject, err)
	}
	return der, nil
}
