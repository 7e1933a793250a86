// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"hwvtpm/control/ca"
	"hwvtpm/control/revoke"
	"hwvtpm/control/store"
)

// Profiles of certificates in records.
const (
	ProfileHostAIK   = "host-aik"
	ProfileVTPMAIK   = "vtpm-aik"
	ProfileTLSClient = "tls-client"
)

// certify signs, and makes it so in one transaction that judges once more. What is
// signed and not recorded is shown to nobody.
func (s *Service) certify(ctx context.Context, c *store.Challenge, now time.Time) (*Result, error) {
	r, err := s.sign(c, now)
	if err != nil {
		return nil, err
	}
	err = s.cfg.Store.Update(ctx, func(tx store.Tx) error {
		if err := authorise(tx, c, now); err != nil {
			return err
		}
		if err := s.spend(tx, c); err != nil {
			return err
		}
		if err := supersede(tx, c, now); err != nil {
			return err
		}
		if err := recordCertificates(tx, c, r); err != nil {
			return err
		}
		return recordSubject(tx, c, SerialText(r.Certificate), now)
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (s *Service) sign(c *store.Challenge, now time.Time) (*Result, error) {
	key, err := x509.ParsePKIXPublicKey(c.AKKey)
	if err != nil {
		return nil, fmt.Errorf("enrol: key of a challenge: %w", err)
	}
	var template *x509.Certificate
	if c.Kind == store.KindHost {
		template, err = ca.HostAIK(c.Name, ca.Validity{Now: now, Life: s.cfg.HostLife})
	} else {
		template, err = ca.VTPMAIK(c.Name, ca.Validity{Now: now, Life: s.cfg.VTPMLife})
		if err == nil {
			err = ca.BesideEK(template, c.EK)
		}
	}
	if err != nil {
		return nil, err
	}
	a := s.cfg.Authority
	r := &Result{}
	if r.Certificate, err = a.Attestation.Issue(template, key); err != nil {
		return nil, err
	}
	r.Chain = []*x509.Certificate{a.Attestation.Certificate, a.Root.Certificate}
	if len(c.TLSKey) == 0 {
		return r, nil
	}
	if r.TLS, err = s.signTLS(c, now); err != nil {
		return nil, err
	}
	r.Chain = append(r.Chain, a.Service.Certificate)
	return r, nil
}

func (s *Service) signTLS(c *store.Challenge, now time.Time) (*x509.Certificate, error) {
	key, err := x509.ParsePKIXPublicKey(c.TLSKey)
	if err != nil {
		return nil, fmt.Errorf("enrol: TLS key of a challenge: %w", err)
	}
	template, err := ca.TLSClient(c.Name, ca.Validity{Now: now, Life: s.cfg.HostLife})
	if err != nil {
		return nil, err
	}
	return s.cfg.Authority.Service.Issue(template, key)
}

// spend takes a token that is good once.
func (s *Service) spend(tx store.Tx, c *store.Challenge) error {
	if c.Token == "" {
		return nil
	}
	t, err := store.Tokens.Get(tx, c.Token)
	if err != nil || t.Reuse {
		return err
	}
	return store.Tokens.Delete(tx, c.Token)
}

// supersede takes back what a name had for another key or TPM: a name has one
// attestation key at a time.
func supersede(tx store.Tx, c *store.Challenge, now time.Time) error {
	had, err := enrolled(tx, c)
	if err != nil || had.EK == "" || (had.EK == c.EK && had.AK == c.AK) {
		return err
	}
	profiles := []string{ProfileVTPMAIK}
	if c.Kind == store.KindHost {
		profiles = []string{ProfileHostAIK, ProfileTLSClient}
	}
	for _, p := range profiles {
		_, err2 := revoke.MarkSubject(tx, p, c.Name, ca.ReasonSuperseded, now)
		err = errors.Join(err, err2)
	}
	return err
}

func recordCertificates(tx store.Tx, c *store.Challenge, r *Result) error {
	profile := ProfileVTPMAIK
	if c.Kind == store.KindHost {
		profile = ProfileHostAIK
	}
	if err := putCertificate(tx, r.Certificate, ca.NameAttestation, profile, c.Name); err != nil || r.TLS == nil {
		return err
	}
	return putCertificate(tx, r.TLS, ca.NameService, ProfileTLSClient, c.Name)
}

func putCertificate(tx store.Tx, cert *x509.Certificate, issuer, profile, subject string) error {
	serial := SerialText(cert)
	return store.Certificates.Put(tx, serial, store.Certificate{
		Serial: serial, Issuer: issuer, Profile: profile, Subject: subject,
		NotBefore: cert.NotBefore, NotAfter: cert.NotAfter, DER: cert.Raw,
	})
}

func recordSubject(tx store.Tx, c *store.Challenge, serial string, now time.Time) error {
	now = now.UTC()
	if c.Kind == store.KindHost {
		h, err := store.Hosts.Get(tx, c.Name)
		if notFoundIsFine(err) != nil {
			return err
		}
		if h.EK != c.EK || h.AK != c.AK {
			h = store.Host{Name: c.Name, EK: c.EK, AK: c.AK, Enrolled: now}
		}
		h.Serial, h.Renewed = serial, now
		return store.Hosts.Put(tx, c.Name, h)
	}
	v, err := store.VMs.Get(tx, c.Name)
	if notFoundIsFine(err) != nil {
		return err
	}
	if v.EK != c.EK || v.AK != c.AK {
		v = store.VM{ID: c.Name, EK: c.EK, AK: c.AK, Enrolled: now}
	}
	v.Serial, v.Renewed, v.Host, v.Coprocessor = serial, now, c.Host, c.Coprocessor
	if err := store.Owners.Put(tx, c.EK, store.Owner{EK: c.EK, VM: c.Name}); err != nil {
		return err
	}
	return store.VMs.Put(tx, c.Name, v)
}
