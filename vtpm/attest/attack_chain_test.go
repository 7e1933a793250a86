// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"testing"
	"time"

	"hwvtpm/control/ca"
)

type certificate = x509.Certificate

func softKey(t testing.TB) *ecdsa.PrivateKey {
	return ok[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
}

// ended is a life that is over.
var ended = ca.Validity{Now: now.Add(-2 * time.Hour), Life: time.Hour}

// aikLife gives the victim's AIK certificate another life.
func (a *attempt) aikLife(v ca.Validity) {
	cert := ok[*certificate](a.t)
	template := cert(ca.VTPMAIK("vm-1", v))
	template.Subject.SerialNumber = a.victim.aikCert.Subject.SerialNumber
	a.ev.VM.Chain = a.chainOf(cert(a.one.authority.Attestation.Issue(template, a.victim.aik.pub)))
}

var chainAttacks = []attack{
	{"foreign root", func(a *attempt) {
		a.v.Roots = newAuthority(a.t).Roots()
	}, []Name{ClaimVMChain, ClaimChain}},
	{"no root at all", func(a *attempt) {
		a.v.Roots = x509.NewCertPool()
	}, []Name{ClaimVMChain, ClaimChain}},
	{"all certificates ended", func(a *attempt) {
		a.v.Now = now.Add(31 * 24 * time.Hour)
	}, []Name{ClaimVMChain, ClaimChain}},
	{"AIK certificate ended", func(a *attempt) {
		a.aikLife(ended)
	}, []Name{ClaimVMChain}},
	{"host's certificate ended", func(a *attempt) {
		a.during(ended, func() {
			s := *a.one
			s.hostCert = ok[*certificate](a.t)(s.authority.Attestation.Issue(ok[*certificate](a.t)(ca.HostAIK("host-1", month)), s.hostAIK.pub))
			a.ev.Binding.Chain = a.chainOf(a.victim.ekCert, a.one.cardCert, s.hostCert)
		})
	}, []Name{ClaimChain}},
	{"coprocessor's certificate ended", func(a *attempt) {
		a.during(ended, func() {
			a.ev.Binding.Chain = a.chainOf(a.victim.ekCert, a.one.certifyCard(a.one.card), a.one.hostCert)
		})
	}, []Name{ClaimChain}},
	{"EK certificate ended", func(a *attempt) {
		cert, issuer := ok[*certificate](a.t), &ca.Issuer{Certificate: a.one.cardCert, Signer: a.one.card}
		ek := cert(issuer.Issue(cert(ca.VTPMEK("vm-1", model, a.victim.ek.pub, ended)), a.victim.ek.pub))
		a.ev.Binding.Chain = a.chainOf(ek, a.one.cardCert, a.one.hostCert)
	}, []Name{ClaimChain}},
	{"AIK certificate not begun", func(a *attempt) {
		a.aikLife(ca.Validity{Now: now.Add(time.Hour), Life: time.Hour})
	}, []Name{ClaimVMChain}},
	{"AIK certified by the host", func(a *attempt) {
		forged := a.victim.certifyAIK(&ca.Issuer{Certificate: a.one.hostCert, Signer: a.one.hostAIK}, a.victim.aik.pub, a.victim.ekCert)
		a.ev.VM.Chain = a.chainOf(forged, a.one.hostCert)
	}, []Name{ClaimVMChain}},
	{"AIK certified by the card", func(a *attempt) {
		forged := a.victim.certifyAIK(&ca.Issuer{Certificate: a.one.cardCert, Signer: a.one.card}, a.victim.aik.pub, a.victim.ekCert)
		a.ev.VM.Chain = a.chainOf(forged, a.one.cardCert, a.one.hostCert)
	}, []Name{ClaimVMChain}},
	{"AIK certified by the authority for TLS", func(a *attempt) {
		service := a.one.authority.Service
		forged := a.victim.certifyAIK(service, a.victim.aik.pub, a.victim.ekCert)
		a.ev.VM.Chain = string(ca.PEM(forged, service.Certificate))
	}, []Name{ClaimVMChain}},
	{"host AIK in place of the AIK", func(a *attempt) {
		a.ev.VM.Chain = a.chainOf(a.one.hostCert)
	}, []Name{ClaimVMChain}},
	{"chain without the card", func(a *attempt) {
		issuer := &ca.Issuer{Certificate: a.one.hostCert, Signer: a.one.hostAIK}
		cert := ok[*certificate](a.t)
		forged := cert(issuer.Issue(cert(ca.VTPMEK("vm-1", model, a.victim.ek.pub, month)), a.victim.ek.pub))
		a.ev.Binding.Chain = a.chainOf(forged, a.one.hostCert)
	}, []Name{ClaimChain}},
	{"card made by a card", func(a *attempt) {
		cert, second := ok[*certificate](a.t), softKey(a.t)
		issuer := &ca.Issuer{Certificate: a.one.cardCert, Signer: a.one.card}
		card := cert(issuer.Issue(cert(ca.CoprocessorAIK("ff", month)), second.Public()))
		ek := cert((&ca.Issuer{Certificate: card, Signer: second}).Issue(cert(ca.VTPMEK("vm-1", model, a.victim.ek.pub, month)), a.victim.ek.pub))
		a.ev.Binding.Chain = a.chainOf(ek, card, a.one.cardCert, a.one.hostCert)
	}, []Name{ClaimChain}},
	{"card under another card's serial", func(a *attempt) {
		cert, second := ok[*certificate](a.t), softKey(a.t)
		issuer := &ca.Issuer{Certificate: a.one.hostCert, Signer: a.one.hostAIK}
		card := cert(issuer.Issue(cert(ca.CoprocessorAIK(hex.EncodeToString(make([]byte, 16)), month)), second.Public()))
		ek := cert((&ca.Issuer{Certificate: card, Signer: second}).Issue(cert(ca.VTPMEK("vm-1", model, a.victim.ek.pub, month)), a.victim.ek.pub))
		a.ev.Binding.Chain = a.chainOf(ek, card, a.one.hostCert)
	}, []Name{ClaimChain}},
	{"AIK certificate in place of the EK's", func(a *attempt) {
		a.ev.Binding.Chain = a.chainOf(a.victim.aikCert, a.one.cardCert, a.one.hostCert)
	}, []Name{ClaimChain}},
	{"text in place of certificates", func(a *attempt) {
		a.ev.Binding.Chain = "none"
	}, []Name{ClaimChain}},
	{"AIK revoked", func(a *attempt) {
		a.v.Lists = a.one.lists(a.victim.aikCert)
	}, []Name{ClaimRevocation}},
	{"host revoked", func(a *attempt) {
		a.v.Lists = a.one.lists(a.one.hostCert)
	}, []Name{ClaimRevocation}},
	{"authority revoked", func(a *attempt) {
		a.v.Lists = a.one.rootList(a.one.authority.Attestation.Certificate)
	}, []Name{ClaimRevocation}},
	{"revoked by a list that ended", func(a *attempt) {
		a.v.Lists = a.one.lists(a.victim.aikCert)
		a.v.Now = now.Add(48 * time.Hour)
	}, []Name{ClaimRevocation}},
	{"lists ended", func(a *attempt) {
		a.v.Lists = a.one.lists()
		a.v.Now = now.Add(48 * time.Hour)
	}, []Name{ClaimRevocation}},
	{"list of one authority is missing", func(a *attempt) {
		a.v.Lists = a.one.lists()[:1]
	}, []Name{ClaimRevocation}},
	{"list signed by somebody else", func(a *attempt) {
		foreign := &site{t: a.t, authority: newAuthority(a.t)}
		a.v.Lists = append(a.one.lists()[:1], foreign.lists()[1])
	}, []Name{ClaimRevocation}},
	{"lists asked for and not there", func(a *attempt) {
		a.v.Policy.Revocation = true
	}, []Name{ClaimRevocation}},
}
