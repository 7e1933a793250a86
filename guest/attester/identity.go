// SPDX-License-Identifier: Apache-2.0

package attester

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

const maxChain = 8 // certificates, the AIK's among them

// Identity is the certified attestation key.
type Identity struct {
	VM          string // the machine that the certificate names
	Certificate *x509.Certificate
	Chain       []*x509.Certificate // its issuers, as the authority gave them

	text string // all of them, PEM
}

// Due says whether half of the certificate's life is over.
func (i *Identity) Due(now time.Time) bool {
	life := i.Certificate.NotAfter.Sub(i.Certificate.NotBefore)
	return now.After(i.Certificate.NotAfter.Add(-life / 2))
}

// Identity reads the certificate in the folder. Errors: ErrNotEnrolled, also if it is
// for another key than the one that is there.
func (a *Attester) Identity() (*Identity, error) {
	text, err := a.certificate()
	if err != nil {
		return nil, err
	}
	id, err := a.identity(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrNotEnrolled, certificateFile, err)
	}
	return id, nil
}

// identity reads a certificate of the AIK, and then its issuers.
func (a *Attester) identity(text string) (*Identity, error) {
	certs, err := parsePEM(text)
	if err != nil {
		return nil, err
	}
	if same, ok := certs[0].PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !same.Equal(a.key.Public()) {
		return nil, errors.New("the certificate is for another key")
	}
	return &Identity{machineOf(certs[0]), certs[0], certs[1:], text}, nil
}

func parsePEM(text string) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for rest := []byte(text); len(certs) < maxChain; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("there is no certificate")
	}
	return certs, nil
}

// Enrolled says, without the TPM, whether the folder has a certificate: nil, or
// ErrNotEnrolled.
func Enrolled(dir string) error {
	_, err := (&Attester{dir: dir}).certificate()
	return err
}
