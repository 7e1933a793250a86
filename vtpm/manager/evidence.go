// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"hwvtpm/control/ca"
	"hwvtpm/coproc/abi"
	"hwvtpm/vtpm/attest"
	"hwvtpm/vtpm/door"
	"hwvtpm/vtpm/hostpcr"
)

// Evidence adds to a machine's own quote what ties the machine to card and host, and
// the host's quote, made for it. The machine's quote must be good, of the machine that
// the channel belongs to, and by an attestation key that was proven beside an
// endorsement key of its slot. Errors are ErrRequest, ErrDenied, ErrNotFound,
// ErrBusy and ErrUnavailable.
func (m *Manager) Evidence(ctx context.Context, caller door.Caller, req *door.EvidenceRequest) (*attest.Evidence, error) {
	machine, vm, err := m.machine(ctx, caller, req)
	if err != nil {
		return nil, err
	}
	s, l, err := m.slot(ctx, vm)
	if err != nil {
		return nil, err
	}
	binding, err := m.binding(s, l, machine)
	if err != nil {
		return nil, err
	}
	done, ok := m.quotes.TakeAlone(shareOf(caller, vm), m.cfg.Now())
	if !ok {
		return nil, fmt.Errorf("%w: %s has had its share of the host's quotes; try again later", ErrBusy, vm)
	}
	defer done()
	nonce := attest.HostNonce(req.Nonce, machine.Quote.Attest)
	asking, cancel := cardContext(ctx)
	defer cancel()
	health, _, err := l.card.HealthStatementFor(asking, nonce)
	if err != nil {
		return nil, &trouble{noCard, err}
	}
	binding.Health = health.Raw
	reading, err := m.quoter.alone(ctx, forEvidence, nonce[:])
	if err != nil {
		return nil, &trouble{noTPM, err}
	}
	host := hostLayer(reading)
	mode := attest.Mode(req.PCRMap)
	if mode == "" {
		mode = modeOf(machine.PCRs, host.PCRs)
	}
	m.sawAIK(vm, machine.Chain)
	return &attest.Evidence{Version: attest.Version, PCRMap: mode, VM: *machine, Binding: *binding, Host: host}, nil
}

// machine checks a machine's own layer, and says whose it is. Checks take turns, lest
// callers that nobody knows take all of the host's processors.
func (m *Manager) machine(ctx context.Context, caller door.Caller, req *door.EvidenceRequest) (*attest.Machine, string, error) {
	switch attest.Mode(req.PCRMap) {
	case "", attest.ModeMap, attest.ModeEvidence, attest.ModeOff:
	default:
		return nil, "", fmt.Errorf("%w: pcr-map %.20q", ErrRequest, req.PCRMap)
	}
	select {
	case m.checks <- struct{}{}:
		defer func() { <-m.checks }()
	case <-ctx.Done():
		return nil, "", fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
	machine, err := attest.ParseMachine(req.VM)
	if err != nil {
		return nil, "", fmt.Errorf("%w: %w", ErrRequest, err)
	}
	vm, err := attest.CheckMachine(machine, req.Nonce, m.cfg.Roots, m.cfg.Now())
	if errors.Is(err, attest.ErrNotHeld) {
		return nil, "", fmt.Errorf("%w: %w", ErrDenied, err)
	} else if err != nil {
		return nil, "", fmt.Errorf("%w: %w", ErrRequest, err)
	}
	if caller.VM != "" && caller.VM != vm {
		return nil, "", fmt.Errorf("%w: the quote is of the machine %s, and the channel belongs to %s", ErrDenied, vm, caller.VM)
	}
	return machine, vm, nil
}

// binding ties the endorsement key, beside which the machine's attestation key was
// proven, to card and host.
func (m *Manager) binding(s *slot, l *link, machine *attest.Machine) (*attest.Binding, error) {
	id := m.identity()
	if l.bond == nil || !id.good(m.cfg.Now()) {
		return nil, fmt.Errorf("%w: the authority has not certified this host", ErrUnavailable)
	}
	aik, err := ca.ParsePEM([]byte(machine.Chain))
	if err != nil || len(aik) == 0 {
		return nil, fmt.Errorf("%w: chain of the AIK", ErrRequest) // CheckMachine has read it before
	}
	beside, err := ca.EKOf(aik[0])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDenied, err)
	}
	i := slices.IndexFunc(s.eks, func(e ek) bool { return e.cert != nil && ca.EKDigest(e.cert) == beside })
	if i < 0 {
		if !s.complete {
			return nil, fmt.Errorf("%w: %s: %w", ErrUnavailable, s.info.Name, s.why)
		}
		return nil, fmt.Errorf("%w: the attestation key was proven beside another endorsement key than those of the slot %s", ErrDenied, s.info.Name)
	}
	chain := append([]*x509.Certificate{s.eks[i].cert}, l.bond.chain(id)...)
	return &attest.Binding{
		Chain: string(ca.PEM(chain...)), EKPublic: s.eks[i].public, Statement: s.statement, CardQuote: l.bond.quote,
	}, nil
}

// hostLayer puts a reading of the host's PCRs into the form of evidence.
func hostLayer(r *hostpcr.Reading) *attest.Layer {
	layer := &attest.Layer{
		Quote: attest.Quote{Attest: r.Quote.Attest, Signature: r.Quote.Signature}, PCRs: attest.PCRs{}, Log: r.Log,
	}
	for _, bank := range []abi.Banks{abi.BankSHA1, abi.BankSHA256, abi.BankSHA384, abi.BankSHA512} {
		if r.Values.Banks()&bank == 0 {
			continue
		}
		for pcr := range abi.HostPCRs {
			layer.PCRs.Set(bank.String(), pcr, r.Values.Value(bank, pcr))
		}
	}
	return layer
}

// modeOf tells what PCR 0-7 of a machine are: the host's, in every bank that the host
// quotes, or else its own.
func modeOf(vm, host attest.PCRs) attest.Mode {
	for bank := range host {
		for pcr := range abi.HostPCRs {
			if !slices.Equal(vm.Get(bank, pcr), host.Get(bank, pcr)) {
				return attest.ModeEvidence
			}
		}
	}
	return attest.ModeMap
}
