// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto/x509"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/control/ca"
)

func TestEvidenceHolds(t *testing.T) {
	m := newSite(t, newAuthority(t), "host-1").newMachine("vm-1")
	v := m.verifier()
	v.Lists = m.lists()
	v.Policy = &Policy{
		Revocation: true, SameBoot: true, Machines: []string{"vm-1"}, Hosts: []string{"host-1"},
		Host: LayerPolicy{Log: true, SecureBoot: true},
		Card: CardPolicy{Firmware: []Hex{append(Hex{1}, make(Hex, 31)...)}},
	}
	r := ok[*Result](t)(v.Verify(through(t, m.answer(nonce)), nonce))
	for _, c := range r.Claims {
		t.Logf("%-18s %-11s %s", c.Name, c.State, c.Reason)
	}
	if !r.OK {
		t.Error("whole evidence does not hold")
	}
}

// Certificates of host and coprocessor are renewed without the slots, whose own have no
// end: new ones of the same names and keys take their place.
func TestRenewedIssuers(t *testing.T) {
	s := newSite(t, newAuthority(t), "host-1")
	m := s.newMachine("vm-1")
	v, ev := s.verifier(), m.answer(nonce)
	v.Cache = NewCache()
	if r := ok[*Result](t)(v.Verify(through(t, ev), nonce)); !r.OK {
		t.Fatalf("the evidence does not hold: %+v", r.Claims)
	}
	v.Now = now.Add(31 * 24 * time.Hour)
	a := &attempt{lab: &lab{t: t, one: s, victim: m}, ev: ev, v: v, nonce: nonce}
	ek := m.ekCert
	a.rebuild(ca.Validity{Now: v.Now, Life: month.Life}, ok[*x509.Certificate](t))
	certs := ok[[]*x509.Certificate](t)(ca.ParsePEM([]byte(ev.Binding.Chain)))
	certs[0] = ek
	ev.Binding.Chain = string(ca.PEM(certs...))
	if r := ok[*Result](t)(v.Verify(through(t, ev), nonce)); !r.OK {
		t.Errorf("after renewal: %+v", r.Claims)
	}
}

// A guest that extends a PCR of the host's changes nothing, and with it another one
// shows in the machine's values.
func TestGuestExtends(t *testing.T) {
	m := newSite(t, newAuthority(t), "host-1").newMachine("vm-1")
	extend := func(pcr tpm2.TPMHandle) error {
		_, err := tpm2.PCRExtend{
			PCRHandle: tpm2.AuthHandle{Handle: pcr, Auth: tpm2.PasswordAuth(nil)},
			Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: make([]byte, 32)}}},
		}.Execute(m.tpm)
		return err
	}
	before := m.tpm.read(firmware)
	for pcr := range tpm2.TPMHandle(firmwarePCRs) {
		t.Logf("PCR %d: %v", pcr, extend(pcr))
	}
	if after := m.tpm.read(firmware); !reflect.DeepEqual(after, before) {
		t.Errorf("the guest changed the host's PCRs: %v, before %v", after, before)
	}
	ev := m.answer(nonce)
	if r := ok[*Result](t)(m.verifier().Verify(through(t, ev), nonce)); !r.OK {
		t.Errorf("the evidence does not hold any more: %+v", r.Claims)
	}
	other := map[string][]uint{"sha256": {0, 1, 2, 3, 4, 5, 6, 7, 14}, "sha384": firmware["sha384"]}
	unextended := m.tpm.read(other)
	if err := extend(14); err != nil {
		t.Fatal(err)
	}
	ev = m.answerOver(nonce, other, firmware)
	if r := ok[*Result](t)(m.verifier().Verify(through(t, ev), nonce)); !r.OK {
		t.Errorf("a PCR of the guest's own was extended: %+v", r.Claims)
	}
	ev.VM.PCRs = unextended
	if r := ok[*Result](t)(m.verifier().Verify(through(t, ev), nonce)); r.Get(ClaimVMPCRs).State != Failed {
		t.Errorf("the values before it are taken: %+v", r.Claims)
	}
}
