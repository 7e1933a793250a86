// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"

	"hwvtpm/coproc/abi"
	"hwvtpm/vtpm/door"
)

// Status is how the host is.
func (m *Manager) Status() door.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := door.Status{Version: door.Version, Host: m.cfg.Name, VMs: len(m.slots)}
	if m.id != nil {
		s.AIK = certification(m.id.aik)
		if !m.id.good(m.cfg.Now()) {
			s.Problems = append(s.Problems, "the host's certificate has ended")
		}
	} else {
		s.Problems = append(s.Problems, "the host has no certificate")
	}
	if m.link != nil {
		s.Card = m.link.serial
		if m.link.bond != nil {
			s.CardAIK = certification(m.link.bond.cert)
		} else {
			s.Problems = append(s.Problems, "the card has no certificate")
		}
	} else {
		s.Problems = append(s.Problems, "the card is not reached")
	}
	for _, err := range m.problems {
		if err != nil {
			s.Problems = append(s.Problems, err.Error())
		}
	}
	return s
}

func certification(c *x509.Certificate) door.Certification {
	digest := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return door.Certification{Key: hex.EncodeToString(digest[:]), Serial: c.SerialNumber.Text(16), Ends: c.NotAfter.UTC()}
}

// VMs gives the names of all machines that have a slot, sorted.
func (m *Manager) VMs() []string { return slices.Sorted(maps.Keys(m.known())) }

// VM gives what is known of a machine. Errors are ErrNotFound and ErrUnavailable.
func (m *Manager) VM(ctx context.Context, name string) (*door.VM, error) {
	s, l, err := m.slot(ctx, name)
	if errors.Is(err, ErrUnavailable) { // without the card, what was known before is better than nothing
		if s = m.known()[name]; s == nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	v := &door.VM{
		Name: name, Open: s.info.Life == abi.LifeLive || s.info.Life == abi.LifeParked,
		EKs: s.doorEKs(l, m.identity()), Statement: s.statement,
	}
	m.mu.Lock()
	v.AIK = m.aiks[name]
	m.mu.Unlock()
	return v, nil
}

// Summary is one line for the service manager.
func (m *Manager) Summary() string {
	s := m.Status()
	text := fmt.Sprintf("%d machines", s.VMs)
	if len(s.Problems) > 0 {
		text += "; " + s.Problems[0]
	}
	return text
}
