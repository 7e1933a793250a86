// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/guest/attester"
	"hwvtpm/vtpm/door"
)

// tenant is a virtual machine without the machine: its slot, as its backend has
// it, and its channel to the host.
type tenant struct {
	name string
	dir  string
	slot *cardTarget
	door *door.Client
	tpm  *sharedTPM
	keys int // how many attestation keys there were

	attester *attester.Attester // with the last of them
}

// newTenant makes a slot and starts its TPM, which shows the host's PCR 0-7. The
// channel is not there yet.
func (c *cloud) newTenant(ctx context.Context, name string) (m *tenant, err error) {
	m = &tenant{name: name, dir: filepath.Join(c.dir, "machines", name)}
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	if err := c.card.create(name, abi.DefaultKeys); err != nil {
		return nil, err
	}
	if m.slot, err = c.card.open(name); err != nil {
		return nil, err
	}
	pcrs, err := c.backend().PCRs(ctx)
	if err != nil {
		return nil, err
	}
	mapper, ok := m.slot.slot.(coproc.PCRMapper)
	if !ok {
		return nil, errors.New("bench: the slot can't map PCRs")
	}
	if err := errors.Join(mapper.MapPCRs(ctx, pcrs), startup(m.slot)); err != nil {
		return nil, err
	}
	m.tpm = &sharedTPM{slot: m.slot}
	return m, nil
}

// enrol has a new attestation key certified, and keeps it.
func (m *tenant) enrol(ctx context.Context, at attester.Authority, token string) (key, enrol time.Duration, err error) {
	m.forget()
	m.keys++
	begin := time.Now()
	m.attester, err = attester.Open(m.tpm, filepath.Join(m.dir, fmt.Sprint(m.keys)))
	key = time.Since(begin)
	if err != nil {
		return 0, 0, err
	}
	_, err = m.attester.Enrol(ctx, at, attester.EnrolOptions{Token: token})
	return key, time.Since(begin) - key, err
}

func (m *tenant) forget() {
	if m.attester != nil {
		_ = m.attester.Close()
	}
}

func (m *tenant) close() {
	m.forget()
	if m.door != nil {
		_ = m.door.Close()
	}
	if m.slot != nil {
		m.slot.close()
	}
}

// sharedTPM makes a target fit for any goroutine.
type sharedTPM struct {
	mu    sync.Mutex // held while the TPM works: its response is in the target's buffer
	slot  *cardTarget
	count int // commands so far
}

func (s *sharedTPM) Send(command []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count++
	resp, err := s.slot.exchange(command)
	return bytes.Clone(resp), err
}

func (s *sharedTPM) commands() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}
