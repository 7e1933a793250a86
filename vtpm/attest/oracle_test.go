// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto"
	"encoding/hex"
	"encoding/pem"
	"testing"

	goattest "github.com/google/go-attestation/attest"
)

// bankPCRs are values as go-attestation wants them.
func bankPCRs(values PCRs, bank string) []goattest.PCR {
	var list []goattest.PCR
	for _, n := range values.numbers(bank) {
		list = append(list, goattest.PCR{Index: n, Digest: values.Get(bank, n), DigestAlg: bankNamed(bank).hash})
	}
	return list
}

// go-attestation, which reads one bank of a quote, judges quotes and logs alike.
func TestGoAttestationAgrees(t *testing.T) {
	m := newSite(t, newAuthority(t), "host-1").newMachine("vm-1")
	ev := m.answerOver(nonce, selectionOnly("sha256"), selectionOnly("sha256"))
	if r := ok[*Result](t)(m.verifier().Verify(through(t, ev), nonce)); !r.OK {
		t.Fatalf("the evidence does not hold: %+v", r.Claims)
	}
	fresh := HostNonce(nonce, ev.VM.Quote.Attest)
	for _, l := range []struct {
		name  string
		key   crypto.PublicKey
		layer *Layer
		nonce []byte
	}{{"vm", m.aik.pub, &ev.VM.Layer, nonce}, {"host", m.hostAIK.pub, ev.Host, fresh[:]}} {
		ak, pcrs := &goattest.AKPublic{Public: l.key, Hash: crypto.SHA256}, bankPCRs(l.layer.PCRs, "sha256")
		q := goattest.Quote{Quote: l.layer.Quote.Attest, Signature: l.layer.Quote.Signature}
		if err := ak.Verify(q, pcrs, l.nonce); err != nil {
			t.Errorf("%s: go-attestation: %v", l.name, err)
		}
		if err := ak.Verify(q, pcrs, []byte("another")); err == nil {
			t.Errorf("%s: go-attestation takes another nonce", l.name)
		}
	}
	log, err := goattest.ParseEventLog(ev.Host.Log)
	if err != nil {
		t.Fatal(err)
	}
	events, err := log.Verify(bankPCRs(ev.Host.PCRs, "sha256"))
	if err != nil {
		t.Fatalf("go-attestation: %v", err)
	}
	ours, err := replay(ev.Host.Log, ev.Host.PCRs)
	if err != nil {
		t.Fatal(err)
	}
	if len(ours.events["sha256"]) != len(events) {
		t.Errorf("%d events, go-attestation has %d", len(ours.events["sha256"]), len(events))
	}
	on, err := ours.secureBoot()
	state, theirs := goattest.ParseSecurebootState(events)
	if err != nil || theirs != nil || on != state.Enabled || !on {
		t.Errorf("Secure Boot %v (%v), go-attestation: %+v (%v)", on, err, state, theirs)
	}
}

// tpm2_checkquote judges both quotes, by the recipe of docs/attestation.md.
func TestCheckquoteAgrees(t *testing.T) {
	j := newJudges(t)
	m := newSite(t, newAuthority(t), "host-1").newMachine("vm-1")
	ev := m.answer(nonce)
	fresh := HostNonce(nonce, ev.VM.Quote.Attest)
	for _, l := range []struct {
		name  string
		key   crypto.PublicKey
		layer *Layer
		nonce []byte
	}{{"vm", m.aik.pub, &ev.VM.Layer, nonce}, {"host", m.hostAIK.pub, ev.Host, fresh[:]}} {
		key := j.write(l.name+".key", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki(t, l.key)}))
		msg, sig := j.write(l.name+".msg", l.layer.Quote.Attest), j.write(l.name+".sig", l.layer.Quote.Signature)
		j.run(true, "tpm2_checkquote", "-u", key, "-m", msg, "-s", sig, "-g", "sha256", "-q", hex.EncodeToString(l.nonce))
		j.run(false, "tpm2_checkquote", "-u", key, "-m", msg, "-s", sig, "-g", "sha256", "-q", "00")
	}
}
