// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"testing"
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
