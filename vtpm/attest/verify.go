// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"hwvtpm/coproc/abi"
)

// Verifier judges evidence. It is not changed by that.
type Verifier struct {
	// Roots are what all chains must lead to.
	Roots *x509.CertPool
	// Lists are revocation lists. With any, or if the policy asks for them, each
	// authority of the chains must have a current one.
	Lists []*x509.RevocationList
	// Policy is what is accepted; nil is the zero Policy.
	Policy *Policy
	// Now is the time to judge at.
	Now time.Time
	// Cache remembers what was proven, for this and other Verifiers; nil is none.
	Cache *Cache
}

// judgement is what is known while one piece of evidence is judged. A field is set
// only if the claim that gives it held.
type judgement struct {
	*Verifier
	policy *Policy
	ev     *Evidence
	nonce  []byte
	res    *Result

	aik            chain
	aikVM          string
	ek             *ekChain
	vm             *quote
	host           *quote
	eks            []abi.EK
	health         *abi.CardHealth
	vmLog, hostLog *bootLog
}

// Verify judges evidence, which must come from Parse, against the nonce that the
// machine was asked with. It is an error only if it can't judge at all.
func (v *Verifier) Verify(ev *Evidence, nonce []byte) (*Result, error) {
	if err := CheckNonce(nonce); err != nil {
		return nil, err
	}
	if err := ev.check(); err != nil {
		return nil, err
	}
	j := v.judge(ev, nonce)
	return j.res, nil
}

func (v *Verifier) judge(ev *Evidence, nonce []byte) *judgement {
	j := v.begin(ev, nonce)
	j.chains()
	j.machine()
	j.vmLog = j.log(ClaimVMLog, ClaimVMPCRs, &ev.VM.Layer, &j.policy.VM)
	j.binding()
	j.hostLayer()
	j.equality()
	j.references()
	j.res.settle()
	return j
}

func (v *Verifier) begin(ev *Evidence, nonce []byte) *judgement {
	j := &judgement{Verifier: v, policy: v.Policy, ev: ev, nonce: nonce, res: &Result{}}
	if j.policy == nil {
		j.policy = &Policy{}
	}
	return j
}

func (j *judgement) chains() {
	r := j.res
	j.machineChain()
	ek, err := j.bindingChain(j.ev.Binding.Chain)
	reason := ""
	if err == nil {
		reason = fmt.Sprintf("an EK of the machine %s is certified, by the coprocessor %s, by the host %s, by a chain to a root", ek.vm, ek.card, ek.host)
	}
	if r.add(ClaimChain, true, reason, err) {
		j.ek, r.Card, r.Host = ek, ek.card, ek.host
	}
	switch required := j.policy.Revocation || len(j.Lists) > 0; {
	case !required:
		r.none(ClaimRevocation, false, "no revocation list was given")
	case r.ready(ClaimRevocation, true, ClaimVMChain, ClaimChain):
		r.add(ClaimRevocation, true, "no certificate was revoked", j.revoked(j.aik, j.ek.certs))
	}
}

func (j *judgement) machineChain() {
	certs, vm, err := j.vmChain(j.ev.VM.Chain)
	if j.res.add(ClaimVMChain, true, fmt.Sprintf("the AIK of the machine %s is certified, by a chain to a root", vm), err) {
		j.aik, j.aikVM = certs, vm
	}
}

// machine judges the layer of the machine, but for its log.
func (j *judgement) machine() {
	r, layer := j.res, &j.ev.VM.Layer
	if r.ready(ClaimVMQuote, true, ClaimVMChain) {
		q, err := openQuote(j.aik[0].PublicKey, &layer.Quote)
		if r.add(ClaimVMQuote, true, "the vTPM signed the quote with the certified AIK", err) {
			j.vm, r.VMClock = q, &q.clock
		}
	}
	if r.ready(ClaimVMFresh, true, ClaimVMQuote) {
		r.add(ClaimVMFresh, true, "the quote answers the nonce", j.answers(j.vm, j.nonce))
	}
	j.values(ClaimVMPCRs, ClaimVMQuote, true, j.vm, layer, &j.policy.VM)
}

func (j *judgement) answers(q *quote, want []byte) error {
	if !bytes.Equal(q.extra, want) {
		return fmt.Errorf("the quote answers %x, and %x was asked", q.extra, want)
	}
	return nil
}

// values judges the PCR values of a layer.
func (j *judgement) values(name, needs Name, required bool, q *quote, layer *Layer, p *LayerPolicy) {
	if !j.res.ready(name, required, needs) {
		return
	}
	need := slices.Clone(p.Quoted)
	for n := range firmwarePCRs {
		need = append(need, n)
	}
	slices.Sort(need)
	need = slices.Compact(need)
	reason := fmt.Sprintf("the values of PCRs %s are quoted, in the banks %v", ranges(need), layer.PCRs.names())
	j.res.add(name, required, reason, q.checkPCRs(layer.PCRs, need))
}

// log judges the event log of a layer, and gives it if it leads to the values.
func (j *judgement) log(name, needs Name, layer *Layer, p *LayerPolicy) *bootLog {
	required := p.wantsLog()
	if layer == nil || len(layer.Log) == 0 {
		j.res.none(name, required, "there is no event log")
		return nil
	}
	if !j.res.ready(name, required, needs) {
		return nil
	}
	l, err := j.replayed(layer.Log, layer.PCRs)
	if err != nil {
		j.res.add(name, required, "", err)
		return nil
	}
	j.res.add(name, required, l.text(), nil)
	return l
}

// binding judges what ties the vTPM to the card and the card to the host.
func (j *judgement) binding() {
	r, b := j.res, &j.ev.Binding
	if r.ready(ClaimAIK, true, ClaimVMChain, ClaimChain) {
		if r.add(ClaimAIK, true, "the AIK was proven to live beside the certified EK", checkAIK(j.aik, j.aikVM, j.ek)) {
			r.Machine = j.aikVM
		}
	}
	slot := ""
	if r.ready(ClaimStatement, true, ClaimChain) {
		st, eks, err := j.ekStatement(b.Statement, j.ek)
		slot = fmt.Sprintf("%x", st.Slot)
		j.eks = eks
		r.add(ClaimStatement, true, fmt.Sprintf("the coprocessor vouches for the %d endorsement keys of its slot %s", len(eks), slot), err)
	}
	if r.ready(ClaimEK, true, ClaimStatement) {
		if r.add(ClaimEK, true, "the certified EK is one of the slot's", checkEK(b.EKPublic, j.ek, j.eks)) {
			r.Slot = slot
		}
	}
}

// hostLayer judges the layer of the host, its tie to the card, and the card's word.
func (j *judgement) hostLayer() {
	required := j.hostRequired()
	r, layer := j.res, j.ev.Host
	if layer == nil {
		for _, name := range []Name{ClaimHostQuote, ClaimHostFresh, ClaimHostPCRs} {
			r.none(name, required, "the evidence has nothing of the host's TPM")
		}
		j.log(ClaimHostLog, ClaimHostPCRs, nil, &j.policy.Host)
	} else {
		j.hostQuote(required, layer)
		j.values(ClaimHostPCRs, ClaimHostQuote, required, j.host, layer, &j.policy.Host)
		j.hostLog = j.log(ClaimHostLog, ClaimHostPCRs, layer, &j.policy.Host)
	}
	j.card()
	j.cardHealth()
}

// hostRequired says whether the evidence must have the host's layer: unless its mode
// is off and the policy takes that.
func (j *judgement) hostRequired() bool {
	return j.ev.PCRMap != ModeOff || !slices.Contains(j.policy.modes(), ModeOff) || j.policy.Host.asks()
}

func (j *judgement) hostQuote(required bool, layer *Layer) {
	r := j.res
	if r.ready(ClaimHostQuote, required, ClaimChain) {
		q, err := openQuote(j.ek.hostAIK().PublicKey, &layer.Quote)
		if r.add(ClaimHostQuote, required, "the host's TPM signed the quote with the AIK that certified the coprocessor", err) {
			j.host, r.HostClock = q, &q.clock
		}
	}
	if r.ready(ClaimHostFresh, required, ClaimHostQuote, ClaimVMQuote) {
		want := HostNonce(j.nonce, j.ev.VM.Quote.Attest)
		r.add(ClaimHostFresh, required, "the quote was made for this quote of the machine", j.answers(j.host, want[:]))
	}
}

// card judges the tie of the card to the host's TPM.
func (j *judgement) card() {
	r := j.res
	if !r.ready(ClaimCard, true, ClaimChain) {
		return
	}
	bound, err := j.cardQuote(&j.ev.Binding.CardQuote, j.ek)
	when := "at a time that no quote tells"
	if err == nil && j.host != nil {
		var same bool
		if when, same, err = sinceBinding(bound.clock, j.host.clock); err == nil && j.policy.SameBoot && !same {
			err = fmt.Errorf("the host's TPM bound the coprocessor %s, not in its present boot", when)
		}
	} else if err == nil && j.policy.SameBoot {
		err = errors.New("without a quote of the host nothing tells in which boot the coprocessor was bound")
	}
	r.add(ClaimCard, true, "the host's TPM bound this coprocessor, "+when, err)
}

// cardHealth judges the card's word on itself. It is fresh like the host's quote.
func (j *judgement) cardHealth() {
	required, raw := !j.policy.Card.empty(), j.ev.Binding.Health
	switch {
	case len(raw) == 0:
		j.res.none(ClaimHealth, required, "the evidence has no statement of the coprocessor on itself")
		return
	case !j.res.ready(ClaimHealth, required, ClaimChain, ClaimVMQuote):
		return
	}
	st, err := j.statement(raw, j.ek, abi.StatementHealth)
	if want := HostNonce(j.nonce, j.ev.VM.Quote.Attest); err == nil && st.Nonce != want {
		err = fmt.Errorf("the statement answers %x, and %x was asked", st.Nonce, want)
	}
	var h abi.CardHealth
	if err == nil {
		h, err = abi.ParseCardHealth(st.Body)
	}
	if j.res.add(ClaimHealth, required, fmt.Sprintf("the coprocessor runs firmware %x", h.Firmware), err) {
		j.health = &h
	}
}
