// SPDX-License-Identifier: Apache-2.0

package card

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/abi/ekcert"
	"hwvtpm/firmware/provision"
	"hwvtpm/firmware/wire"
)

// issue makes the certificate of an endorsement key in a machine's TPM. It has no
// end, so that a TPM is not touched when the certificates above it are renewed; nor
// does it begin after those, so that a clock that was ahead when the slot was made
// does not stay in it.
func (c *Card) issue(ch *chain, vm string, m ekcert.Model, key crypto.PublicKey) ([]byte, error) {
	t, err := ekcert.VTPMEK(vm, m, key, ekcert.Validity{Now: time.Now()})
	if err != nil {
		return nil, err
	}
	t.NotAfter = ekcert.Forever
	for _, above := range ch.certs {
		if above.NotBefore.Before(t.NotBefore) {
			t.NotBefore = above.NotBefore
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, ch.certs[0], key, c.store.Identity())
	if err == nil && len(der) > abi.MaxCertificate {
		err = fmt.Errorf("it has %d bytes, and an NV index takes %d", len(der), abi.MaxCertificate)
	}
	return der, err
}

// modelOf says what kind of TPM a worker runs (EK Credential Profile 2.5, 3.2.9).
func modelOf(w *wire.Certify) ekcert.Model {
	return ekcert.Model{
		Manufacturer: fmt.Sprintf("id:%08X", w.Maker), Model: "hwvtpm", Version: fmt.Sprintf("id:%08X", w.Firmware),
		Family: "2.0", Level: int(w.Level), Revision: int(w.Revision),
	}
}

// signed says whether this card has signed a certificate.
func (c *Card) signed(cert *x509.Certificate) error {
	self := &x509.Certificate{PublicKey: c.store.Identity().Public(), PublicKeyAlgorithm: x509.ECDSA}
	return self.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature)
}

// ours says whether the content of an NV index is a certificate that this card has
// written there: anything else belongs to somebody, and stays.
func (c *Card) ours(content []byte) bool {
	cert, err := x509.ParseCertificate(content)
	return err == nil && c.signed(cert) == nil
}

// oursChain says the same of the indices of the chain.
func (c *Card) oursChain(content []byte) bool {
	if len(content) > wire.MaxChain {
		return false
	}
	certs, err := x509.ParseCertificates(content)
	return err == nil && bytes.Equal(certs[0].RawSubjectPublicKeyInfo, c.key)
}

// checkIssued checks an entry of a slot's certificates: that it is of the key that
// the table has, and that the card has issued it for this slot.
func (c *Card) checkIssued(e *abi.EKCertificate, ek *abi.EK, vm string) error {
	if len(e.Public) == 0 {
		if len(e.DER) > 0 {
			return errors.New("certificate without a key")
		}
		return nil
	}
	key, name, err := provision.ParseEK(e.Public)
	if err != nil || !bytes.Equal(name, ek.Name) {
		return fmt.Errorf("key is %x, the slot has %x: %w", name, ek.Name, errors.Join(err))
	}
	if len(e.DER) == 0 {
		return nil
	}
	cert, err := x509.ParseCertificate(e.DER)
	if err != nil {
		return err
	}
	if same, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !same.Equal(key) {
		return errors.New("certificate is of another key")
	}
	if got, err := ekcert.IsVTPMEK(cert); err != nil || got != vm {
		return fmt.Errorf("certificate is for %q: %w", got, errors.Join(err))
	}
	return c.signed(cert)
}
