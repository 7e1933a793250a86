// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto/sha256"
	"crypto/x509"
	"time"

	"hwvtpm/control/ca"
	"hwvtpm/coproc/abi"
)

// bindTo gives the binding of another machine's vTPM.
func (a *attempt) bindTo(m *machine) {
	a.ev.Binding = m.answer(a.nonce).Binding
	a.ev.Binding.Health = nil
}

var bindingAttacks = []attack{
	{"chain of another machine", func(a *attempt) { a.bindTo(a.beside) }, []Name{ClaimAIK}},
	{"chain and host of a machine of another host", func(a *attempt) {
		a.bindTo(a.far)
		a.hostFor(a.two)
	}, []Name{ClaimAIK}},
	{"EK in the machine's name by another host", func(a *attempt) {
		twin := *a.far
		twin.name = "vm-1"
		twin.ekCert = twin.certifyEK(twin.ek.pub)
		a.bindTo(&twin)
		a.hostFor(a.two)
	}, []Name{ClaimAIK}},
	{"AIK proven beside an EK that was before", func(a *attempt) {
		a.ev.VM.Chain = a.chainOf(a.victim.certifyAIK(a.one.authority.Attestation, a.victim.aik.pub, a.beside.ekCert))
	}, []Name{ClaimAIK}},
	{"AIK certificate that names no EK", func(a *attempt) {
		cert := ok[*x509.Certificate](a.t)
		a.ev.VM.Chain = a.chainOf(cert(a.one.authority.Attestation.Issue(cert(ca.VTPMAIK("vm-1", month)), a.victim.aik.pub)))
	}, []Name{ClaimAIK}},
	{"statement of another card", func(a *attempt) {
		a.ev.Binding.Statement = a.far.ekStatement(a.victim.ek.handle.Name.Buffer)
	}, []Name{ClaimStatement}},
	{"statement with another card's serial", func(a *attempt) {
		forger := *a.one
		forger.cardCert = a.two.cardCert
		m := &machine{site: &forger}
		a.ev.Binding.Statement = m.ekStatement(a.victim.ek.handle.Name.Buffer)
	}, []Name{ClaimStatement}},
	{"statement of another type", func(a *attempt) {
		body := abi.AppendEKBody(nil, &abi.EKBody{EKs: []abi.EK{{Name: a.victim.ek.handle.Name.Buffer}}})
		a.ev.Binding.Statement = a.one.sign(abi.StatementErase, [32]byte{}, body)
	}, []Name{ClaimStatement}},
	{"statement with a bit turned", func(a *attempt) {
		a.ev.Binding.Statement[abi.StatementHeaderSize] ^= 1
	}, []Name{ClaimStatement}},
	{"statement of the future", func(a *attempt) {
		a.v.Now = now.Add(-30 * time.Minute)
		a.v.Roots = a.one.authority.Roots()
		cert := ok[*x509.Certificate](a.t)
		early := ca.Validity{Now: now.Add(-30 * time.Minute), Life: 30 * 24 * time.Hour}
		a.rebuild(early, cert)
	}, []Name{ClaimStatement, ClaimHealth}},
	{"EK that the card does not know", func(a *attempt) {
		a.ev.Binding.Statement = a.victim.ekStatement(a.beside.ek.handle.Name.Buffer)
	}, []Name{ClaimEK}},
	{"EK certificate for another EK", func(a *attempt) {
		a.certifiedEK(a.beside.ek)
	}, []Name{ClaimEK}},
	{"EK of another machine that the card does know", func(a *attempt) {
		a.ev.Binding.EKPublic = a.beside.ek.public
		a.ev.Binding.Statement = a.victim.ekStatement(a.beside.ek.handle.Name.Buffer)
	}, []Name{ClaimEK}},
	{"signing key in place of the EK", func(a *attempt) {
		a.certifiedEK(a.victim.aik)
		a.ev.Binding.EKPublic = a.victim.aik.public
		a.ev.Binding.Statement = a.victim.ekStatement(a.victim.aik.handle.Name.Buffer)
	}, []Name{ClaimEK}},
	{"something behind the EK", func(a *attempt) {
		a.ev.Binding.EKPublic = append(a.ev.Binding.EKPublic, 0)
	}, []Name{ClaimEK}},
	{"card without binding", func(a *attempt) {
		a.ev.Binding.CardQuote = a.one.hostAIK.quote(a.nonce, firmware)
	}, []Name{ClaimCard}},
	{"binding of another card", func(a *attempt) {
		data := CardData(a.two.cardCert.RawSubjectPublicKeyInfo)
		a.ev.Binding.CardQuote = a.one.hostAIK.quote(data[:], firmware)
	}, []Name{ClaimCard}},
	{"binding without its label", func(a *attempt) {
		data := sha256.Sum256(a.one.cardCert.RawSubjectPublicKeyInfo)
		a.ev.Binding.CardQuote = a.one.hostAIK.quote(data[:], firmware)
	}, []Name{ClaimCard}},
	{"binding by another host", func(a *attempt) {
		data := CardData(a.one.cardCert.RawSubjectPublicKeyInfo)
		a.ev.Binding.CardQuote = a.two.hostAIK.quote(data[:], firmware)
	}, []Name{ClaimCard}},
	{"card's word of another time", func(a *attempt) {
		a.ev.Binding.Health = a.one.sign(abi.StatementHealth, [32]byte{}, abi.AppendCardHealth(nil, &abi.CardHealth{}))
	}, []Name{ClaimHealth}},
}

// certifiedEK certifies a key as the victim's EK, and the AIK beside it.
func (a *attempt) certifiedEK(k *key) {
	ek := a.victim.certifyEK(k.pub)
	a.ev.Binding.Chain = a.chainOf(ek, a.one.cardCert, a.one.hostCert)
	a.ev.VM.Chain = a.chainOf(a.victim.certifyAIK(a.one.authority.Attestation, a.victim.aik.pub, ek))
}

// rebuild issues all certificates again with another life.
func (a *attempt) rebuild(v ca.Validity, cert func(*x509.Certificate, error) *x509.Certificate) {
	a.during(v, func() {
		s, m := *a.one, *a.victim
		s.hostCert = cert(a.one.authority.Attestation.Issue(cert(ca.HostAIK("host-1", v)), a.one.hostAIK.pub))
		s.cardCert = s.certifyCard(s.card)
		m.site = &s
		m.ekCert = m.certifyEK(m.ek.pub)
		a.ev.Binding.Chain = a.chainOf(m.ekCert, s.cardCert, s.hostCert)
		a.ev.VM.Chain = a.chainOf(m.certifyAIK(s.authority.Attestation, m.aik.pub, m.ekCert))
	})
}

// during issues certificates with another life.
func (a *attempt) during(v ca.Validity, issue func()) {
	old := month
	defer func() { month = old }()
	month = v
	issue()
}
