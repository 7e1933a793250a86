// SPDX-License-Identifier: Apache-2.0

package card

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/abi/ekcert"
)

// maxIssuers is how many certificates a chain may have.
const maxIssuers = 8

// errNoChain refuses to certify without certificates of the card's own.
var errNoChain = errors.New("the card has no certificates of its own: give it some first (OpCardCertify)")

// chain is the certificate of the card's key, with those of its issuers behind it.
type chain struct {
	certs []*x509.Certificate // at least two
	der   []byte              // one after the other
}

// parseChain reads a chain and checks everything but the time: that it is of this
// card's key and profile, and that each is signed by the next. Who the last is, is
// for others to judge.
func (c *Card) parseChain(der []byte) (*chain, error) {
	if len(der) > abi.MaxCardCertificates {
		return nil, fmt.Errorf("%d bytes of certificates, at most %d", len(der), abi.MaxCardCertificates)
	}
	certs, err := x509.ParseCertificates(der)
	if err != nil {
		return nil, err
	}
	if len(certs) < 2 || len(certs) > maxIssuers {
		return nil, fmt.Errorf("%d certificates, want 2 to %d: the card's, and its issuers'", len(certs), maxIssuers)
	}
	if err := errors.Join(c.checkLeaf(certs[0]), ekcert.CheckEffort(certs...)); err != nil {
		return nil, err
	}
	for i, cert := range certs[:len(certs)-1] {
		if err := checkIssuer(cert, certs[i+1], i+1); err != nil {
			return nil, fmt.Errorf("certificate %d: %w", i, err)
		}
	}
	return &chain{certs, bytes.Clone(der)}, nil
}

// checkLeaf checks the certificate of the card's key. Its subject is always the
// same, so that what was issued under one is good under the next.
func (c *Card) checkLeaf(cert *x509.Certificate) error {
	serial, err := ekcert.IsCoprocessorAIK(cert)
	own := hex.EncodeToString(c.serial[:])
	switch {
	case err != nil:
		return err
	case !bytes.Equal(cert.RawSubjectPublicKeyInfo, c.key):
		return errors.New("the first certificate is of another key than this card's")
	case serial != own || cert.Subject.CommonName != own || len(cert.Subject.Names) != 1:
		return fmt.Errorf("the first certificate is for %q (%s), this card is %s", serial, cert.Subject, own)
	}
	return nil
}

// checkIssuer checks that a certificate was issued by another. below is how many
// issuers are between that and an endorsement key.
func checkIssuer(cert, issuer *x509.Certificate, below int) error {
	if !bytes.Equal(cert.RawIssuer, issuer.RawSubject) {
		return fmt.Errorf("it was issued by %q, and %q comes next", cert.Issuer, issuer.Subject)
	}
	if limited := issuer.MaxPathLen > 0 || issuer.MaxPathLenZero; limited && issuer.MaxPathLen < below {
		return fmt.Errorf("%q issues chains of %d, not of %d", issuer.Subject, issuer.MaxPathLen, below)
	}
	return cert.CheckSignatureFrom(issuer)
}

// inTime checks that all certificates are good now.
func (ch *chain) inTime(now time.Time) error {
	for i, cert := range ch.certs {
		if now.Before(cert.NotBefore) || now.After(cert.NotAfter) {
			return fmt.Errorf("certificate %d is good from %s to %s, and it is %s", i,
				cert.NotBefore.Format(time.RFC3339), cert.NotAfter.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// setChain gives the card a chain.
func (s *Session) setChain(_ context.Context, sub *abi.Submission, _ []byte) ([]byte, *Grant, error) {
	c := s.card
	ch, err := c.parseChain(sub.Payload)
	if err == nil {
		err = ch.inTime(time.Now())
	}
	if err != nil {
		return nil, nil, refuse(abi.StatusBadField, "certificates of the card: %w", err)
	}
	c.chainMu.Lock()
	defer c.chainMu.Unlock()
	if err := c.store.SaveCardCertificates(ch.der); err != nil {
		return nil, nil, fmt.Errorf("certificates of the card: %w", err)
	}
	c.chain, c.chainErr = ch, nil
	c.log.Info("card certified", "by", s.who.Name, "issuer", ch.certs[0].Issuer.String(), "until", ch.certs[0].NotAfter.Format(time.RFC3339))
	return nil, nil, nil
}

// loadChain reads the chain that the card was given earlier. One that is damaged is
// not used, and keeps nothing else from working. One that has ended is used: what is
// issued under it is good with the next.
func (c *Card) loadChain() {
	der, err := c.store.CardCertificates()
	if errors.Is(err, fs.ErrNotExist) {
		c.chainErr = refuse(abi.StatusOrder, "%w", errNoChain)
		return
	}
	if err == nil {
		c.chain, err = c.parseChain(der)
	}
	if err != nil {
		c.chainErr = refuse(abi.StatusCorrupt, "the card's certificates are damaged, give them again: %w", err)
		c.log.Error("the card's certificates cannot be used: endorsement keys are not certified until they are given again", "err", err)
	}
}

// issuers gives the chain, or why there is none.
func (c *Card) issuers() (*chain, error) {
	c.chainMu.Lock()
	defer c.chainMu.Unlock()
	return c.chain, c.chainErr
}
