// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"

	"hwvtpm/control/ca"
	"hwvtpm/vtpm/door"
)

// EKs gives the endorsement keys of a machine that are certified, each with its
// chain. Without any the error is ErrUnavailable and says why.
func (m *Manager) EKs(ctx context.Context, vm string) ([]door.EK, error) {
	s, l, err := m.slot(ctx, vm)
	if err != nil {
		return nil, err
	}
	eks := s.doorEKs(l, m.identity())
	if len(eks) == 0 && s.why != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnavailable, vm, s.why)
	}
	return eks, nil
}

func (s *slot) doorEKs(l *link, id *identity) []door.EK {
	eks := []door.EK{}
	for _, e := range s.eks {
		if e.cert != nil && l != nil && l.bond != nil {
			eks = append(eks, door.EK{Handle: e.handle, Certificate: e.cert.Raw, Chain: raw(l.bond.chain(id))})
		}
	}
	return eks
}

// Enrol asks the authority for a machine's challenge, with the host's TLS key, which
// vouches for the machines of this host. The endorsement key must be one of the
// machine's slot; it is shown with the card's and the host's certificates of today,
// whatever the guest has read in its NV.
func (m *Manager) Enrol(ctx context.Context, caller door.Caller, r *door.EnrolRequest) (*door.Challenge, error) {
	vm := r.Name
	if vm == "" {
		vm = caller.VM
	}
	if caller.VM != "" && vm != caller.VM {
		return nil, fmt.Errorf("%w: the channel belongs to %s", ErrDenied, caller.VM)
	}
	s, l, err := m.slot(ctx, vm)
	if err != nil {
		return nil, err
	}
	id := m.identity()
	if l.bond == nil || !id.good(m.cfg.Now()) {
		return nil, fmt.Errorf("%w: the authority has not certified this host", ErrUnavailable)
	}
	cert, err := s.find(r.EKCertificate)
	if err != nil {
		return nil, err
	}
	done, ok := m.enrols.TakeAlone(shareOf(caller, vm), m.cfg.Now())
	if !ok {
		return nil, fmt.Errorf("%w: %s has enrolled often; try again later", ErrBusy, vm)
	}
	defer done()
	who := Credentials{Token: r.Token, TLS: id.tls}
	c, err := m.authority.Enrol(ctx, &Enrolment{
		Kind: KindVTPM, Name: vm, EKCertificate: cert.Raw, EKChain: raw(l.bond.chain(id)), AKPublic: r.AKPublic, Credentials: who,
	})
	if err != nil {
		return nil, m.refused(err)
	}
	m.waiting.add(c.ID, enrolment{vm: vm, share: shareOf(caller, vm), who: who}, m.cfg.Now())
	return &door.Challenge{ID: c.ID, Blob: c.Blob, Secret: c.Secret}, nil
}

// find gives the certified endorsement key that a guest means: the one with the key
// of the certificate that it shows, or, if it shows none, the first.
func (s *slot) find(shown []byte) (*x509.Certificate, error) {
	if !s.complete {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnavailable, s.info.Name, s.why)
	}
	var key crypto.PublicKey
	if len(shown) > 0 {
		cert, err := parseNV(shown)
		if err != nil {
			return nil, fmt.Errorf("%w: EK certificate: %w", ErrRequest, err)
		}
		key = cert.PublicKey
	}
	i := slices.IndexFunc(s.eks, func(e ek) bool {
		return e.cert != nil && (key == nil || sameKey(e.cert, key) == nil)
	})
	if i < 0 {
		return nil, fmt.Errorf("%w: no endorsement key of the slot %s has this certificate", ErrDenied, s.info.Name)
	}
	return s.eks[i].cert, nil
}

// parseNV reads a certificate as an NV index has it: something may stand behind it.
func parseNV(b []byte) (*x509.Certificate, error) {
	var der asn1.RawValue
	if _, err := asn1.Unmarshal(b, &der); err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der.FullBytes)
}

// refused makes an error of the authority's one for a guest, and looks after the host
// itself if it is the host who is refused.
func (m *Manager) refused(err error) error {
	switch {
	case errors.Is(err, ErrRevoked):
		m.revoke(err)
		return &trouble{noTrust, err}
	case errors.Is(err, ErrRefused):
		return fmt.Errorf("%w: %w", ErrDenied, err)
	case errors.Is(err, ErrBusy):
		return err
	}
	return &trouble{noAuthority, err}
}

// Prove gives the authority the secret of a challenge that Enrol got for this caller.
func (m *Manager) Prove(ctx context.Context, caller door.Caller, p *door.Proof) (*door.Certified, error) {
	e, ok := m.waiting.take(p.ID, caller.VM, m.cfg.Now())
	if !ok {
		return nil, fmt.Errorf("%w: no challenge of this machine has this id", ErrDenied)
	}
	got, err := m.authority.Prove(ctx, &Proof{ID: p.ID, Secret: p.Secret, Credentials: e.who})
	if err != nil {
		return nil, m.refused(err)
	}
	m.sawAIK(e.vm, got.Certificate+got.Chain)
	m.log.Info("a machine's attestation key is certified", "vm", e.vm)
	return &door.Certified{Certificate: got.Certificate, Chain: got.Chain}, nil
}

// sawAIK notes the certificate by which a machine shows itself.
func (m *Manager) sawAIK(vm, chain string) {
	certs, err := ca.ParsePEM([]byte(chain))
	if err != nil {
		return
	}
	chain = string(ca.PEM(certs...)) // and nothing that stands between them
	m.mu.Lock()
	known := m.slots[vm] != nil
	news := known && m.aiks[vm] != chain
	if news {
		m.aiks[vm] = chain
	}
	m.mu.Unlock()
	if news {
		m.exportAIK(vm, chain)
	}
}
