// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"hwvtpm/control/ca"
	"hwvtpm/coproc/abi"
)

const maxCertificates = 8 // of one chain

// chain is a verified chain, the leaf first and the root last.
type chain []*x509.Certificate

// prove is build, with nothing known before.
func (v *Verifier) prove(text string) (chain, error) {
	certs, err := ca.ParsePEM([]byte(text))
	switch {
	case v.Roots == nil: // would be those of the system
		return nil, errors.New("there is no root")
	case err != nil:
		return nil, err
	case len(certs) == 0:
		return nil, errors.New("there is no certificate")
	case len(certs) > maxCertificates:
		return nil, fmt.Errorf("%d certificates are more than %d", len(certs), maxCertificates)
	}
	return ca.Verify(certs[0], certs[1:], v.Roots, v.Now)
}

// authorities checks that these certificates are of authorities that issue
// attestation keys' certificates, and of nothing else. A host's or card's AIK issues
// certificates too, but only those below it: it must not stand here, lest a host
// makes machines' AIKs of its own. Nor must the authority of TLS certificates,
// below which there is nothing.
func authorities(certs chain) error {
	for i, c := range certs {
		name, root := c.Subject.CommonName, i == len(certs)-1
		switch {
		case !c.IsCA || len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) != 0 || !root && c.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign:
			return fmt.Errorf("%q stands in the place of an authority and is none", name)
		case c.MaxPathLenZero:
			return fmt.Errorf("%q is no authority for attestation keys", name)
		}
	}
	return nil
}

// vmChain judges the chain of the vTPM's AIK: AIK, authorities.
func (v *Verifier) vmChain(text string) (chain, string, error) {
	certs, err := v.build(text)
	if err != nil {
		return nil, "", err
	}
	vm, err := ca.IsVTPMAIK(certs[0])
	if err != nil {
		return nil, "", err
	}
	return certs, vm, authorities(certs[1:])
}

// ekChain is the verified chain of a vTPM's EK, and whom its links name.
type ekChain struct {
	certs      chain
	vm         string
	card, host string
}

// The places of the chain's links.
const (
	linkEK = iota
	linkCard
	linkHost
	linkAuthority
)

func (c *ekChain) ek() *x509.Certificate      { return c.certs[linkEK] }
func (c *ekChain) cardAIK() *x509.Certificate { return c.certs[linkCard] }
func (c *ekChain) hostAIK() *x509.Certificate { return c.certs[linkHost] }

// bindingChain judges the chain EK, coprocessor AIK, host AIK, authorities.
func (v *Verifier) bindingChain(text string) (*ekChain, error) {
	certs, err := v.build(text)
	if err != nil {
		return nil, err
	}
	if len(certs) <= linkAuthority {
		return nil, fmt.Errorf("a chain of %d certificates leaves out the card, the host or the authority", len(certs))
	}
	c := &ekChain{certs: certs}
	if c.vm, err = ca.IsVTPMEK(c.ek()); err != nil {
		return nil, fmt.Errorf("endorsement key: %w", err)
	}
	if c.card, err = ca.IsCoprocessorAIK(c.cardAIK()); err != nil {
		return nil, fmt.Errorf("coprocessor: %w", err)
	}
	if c.host, err = ca.IsHostAIK(c.hostAIK()); err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	serial := abi.SerialOf(c.cardAIK().RawSubjectPublicKeyInfo)
	if !strings.EqualFold(c.card, hex.EncodeToString(serial[:])) {
		return nil, fmt.Errorf("the certificate of the coprocessor %s has the key of the coprocessor %x", c.card, serial)
	}
	return c, authorities(certs[linkAuthority:])
}

// revoked checks the certificates of chains against the lists: each that an
// authority issued must be covered by a current list of that authority.
func (v *Verifier) revoked(chains ...chain) error {
	checked := signatures{}
	for _, certs := range chains {
		for i, c := range certs[:len(certs)-1] {
			issuer, root := certs[i+1], i+2 == len(certs)
			if issuer.KeyUsage&x509.KeyUsageCRLSign == 0 && !root {
				continue // a host or card, which has no list: its own certificate is revoked
			}
			if err := v.covered(c, issuer, checked); err != nil {
				return err
			}
		}
	}
	return nil
}

// covered says whether a current list of the issuer does not have the certificate.
// An old list still revokes.
func (v *Verifier) covered(c, issuer *x509.Certificate, checked signatures) error {
	var current bool
	var why error
	for _, list := range v.Lists {
		if !bytes.Equal(list.RawIssuer, issuer.RawSubject) {
			continue
		}
		if err := checked.usable(v, list, issuer); err != nil {
			why = err
			continue
		}
		for _, entry := range list.RevokedCertificateEntries {
			if entry.SerialNumber.Cmp(c.SerialNumber) == 0 {
				return fmt.Errorf("the certificate of %q was revoked on %s", c.Subject.CommonName, date(entry.RevocationTime))
			}
		}
		if v.Now.Before(list.ThisUpdate.Add(-ca.Skew)) || !v.Now.Before(list.NextUpdate) {
			why = fmt.Errorf("the list of %q is good from %s to %s only", issuer.Subject.CommonName, date(list.ThisUpdate), date(list.NextUpdate))
			continue
		}
		current = true
	}
	switch {
	case current:
		return nil
	case why != nil:
		return why
	}
	return fmt.Errorf("there is no revocation list of %q", issuer.Subject.CommonName)
}

// signatures has what usable found of a list and an issuer, since most
// issuers have more than one certificate in the chains.
type signatures map[signature]error

type signature struct {
	list   *x509.RevocationList
	issuer string // DER of its certificate
}

func (s signatures) usable(v *Verifier, list *x509.RevocationList, issuer *x509.Certificate) error {
	k := signature{list, string(issuer.Raw)}
	err, known := s[k]
	if !known {
		err = v.usableList(list, issuer)
		s[k] = err
	}
	return err
}

// usable says whether a list is the issuer's, and a whole one.
func usable(list *x509.RevocationList, issuer *x509.Certificate) error {
	if err := list.CheckSignatureFrom(issuer); err != nil {
		return fmt.Errorf("the list of %q is not signed by it: %w", issuer.Subject.CommonName, err)
	}
	for _, e := range list.Extensions {
		if e.Critical {
			return fmt.Errorf("the list of %q has the critical extension %v", issuer.Subject.CommonName, e.Id)
		}
	}
	return nil
}

func date(t time.Time) string { return t.UTC().Format(time.RFC3339) }
