// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
)

// Learn makes a policy that accepts what this evidence shows: its mode, its
// machine, host and card, the quoted values of PCR 0-7 in strong banks, Secure Boot
// where a log shows that it was on, and the card's firmware. What v's own policy
// names already stays allowed, so that several machines, hosts and boots are learned
// one after the other; what it says nothing of is from now on as this evidence. For
// that the names, values and firmware of v's policy are not asked for. All else is:
// the error is ErrNotHeld for evidence that is not whole.
//
// Without a policy to add to, mode off is not learned: somebody has to want that.
// That these values are the good ones is for the caller to know.
func (v *Verifier) Learn(ev *Evidence, nonce []byte) (*Policy, *Result, error) {
	if err := CheckNonce(nonce); err != nil {
		return nil, nil, err
	}
	if err := ev.check(); err != nil {
		return nil, nil, err
	}
	old := v.Policy
	if old == nil {
		old = &Policy{Version: Version, Modes: []Mode{ModeMap}}
		if ev.PCRMap == ModeEvidence {
			old.Modes = []Mode{ModeEvidence}
		}
	}
	open := *v
	open.Policy = old.withoutReferences()
	j := open.judge(ev, nonce)
	if !j.res.OK {
		return nil, j.res, ErrNotHeld
	}
	p, err := j.learned(old)
	return p, j.res, err
}

// withoutReferences is what of a policy new evidence must show anyhow.
func (p *Policy) withoutReferences() *Policy {
	q := *p
	q.Machines, q.Hosts, q.Cards = nil, nil, nil
	q.VM.PCRs, q.Host.PCRs = nil, nil
	q.Card.Firmware = nil
	return &q
}

func (j *judgement) learned(old *Policy) (*Policy, error) {
	p := *old
	p.Version = Version
	p.Machines = with(p.Machines, j.res.Machine)
	p.Hosts = with(p.Hosts, j.res.Host)
	p.Cards = with(p.Cards, j.res.Card)
	p.VM.learn(j.ev.VM.PCRs, j.vmLog, old.VM.PCRs == nil)
	if j.host != nil {
		p.Host.learn(j.ev.Host.PCRs, j.hostLog, old.Host.PCRs == nil)
	}
	if j.health != nil && !among(j.health.Firmware[:], p.Card.Firmware) {
		p.Card.Firmware = append(slices.Clone(p.Card.Firmware), j.health.Firmware[:])
	}
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("attest: learned policy: %w", err)
	}
	return &p, nil
}

func with(names []string, name string) []string {
	if slices.Contains(names, name) {
		return names
	}
	return append(slices.Clone(names), name)
}

// learn adds values to a layer's policy. Only the first evidence decides that Secure
// Boot is asked for: later it has been asked for, or not been learned.
func (l *LayerPolicy) learn(values PCRs, log *bootLog, first bool) {
	table := map[string]map[string][]Hex{}
	for name, pcrs := range l.PCRs {
		table[name] = maps.Clone(pcrs)
	}
	for _, b := range values.banks() {
		if !b.strong() {
			continue
		}
		if table[b.name] == nil {
			table[b.name] = map[string][]Hex{}
		}
		for number, value := range values[b.name] {
			if n, err := parsePCR(number); err != nil || n >= firmwarePCRs || among(value, table[b.name][number]) {
				continue
			}
			table[b.name][number] = append(slices.Clone(table[b.name][number]), bytes.Clone(value))
		}
	}
	l.PCRs = table
	if first && log != nil {
		on, err := log.secureBoot()
		l.SecureBoot = l.SecureBoot || err == nil && on
	}
}
