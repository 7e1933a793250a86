// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"strings"
	"testing"

	"hwvtpm/vtpm/door"
)

// TestEnrols: a host enrols by a token, ties its card to its TPM, and renews nothing
// when it starts again.
func TestEnrols(t *testing.T) {
	s := newSite(t)
	s.startHost()
	first := s.healthy()
	if first.Host != "host-1" || first.AIK.Serial == "" || first.CardAIK.Serial == "" || first.Card == "" {
		t.Errorf("status %+v", first)
	}
	s.host.again("ready")
	second := s.healthy()
	if second.AIK != first.AIK || second.Card != first.Card || second.CardAIK.Key != first.CardAIK.Key {
		t.Errorf("status %+v after a restart, %+v before", second, first)
	}
}

// TestEvidence: from TPM makers to a verdict: a guest enrols through its door, and
// what it and its host say holds for a verifier that asks for everything. The same over
// HTTPS. It goes on while the authority is away.
func TestEvidence(t *testing.T) {
	s := newSite(t)
	s.create("early")
	s.serverCertificate()
	s.startHost("--listen", "127.0.0.1:0", "--tls-cert", s.path("tls.pem"), "--tls-key", s.path("tls.key"))
	s.healthy()
	s.create("late")
	for _, name := range []string{"early", "late"} {
		g := s.boot(name)
		g.enrol()
		g.holds(name)
		ev, err := g.evidence(s.https())
		if err != nil {
			t.Fatal(err)
		}
		if out, err := s.verify(ev); err != nil {
			t.Errorf("%s by HTTPS: %v\n%s", name, err, out)
		}
		if name == "late" {
			s.control.end()
			s.host.again("ready")
			g.door = s.guest(name)
			until(t, "evidence without the authority", func() bool {
				_, err = g.evidence(g.door)
				return err == nil
			})
		}
	}
	var vm door.VM
	if err := s.door("hostd.sock").Call(t.Context(), door.OpVM, door.VMRequest{Name: "late"}, &vm); err != nil || len(vm.EKs) != 2 || vm.AIK == "" {
		t.Errorf("vm late: %+v, %v", vm, err)
	}
	for _, name := range []string{"host.pem", "coprocessor.pem", "vm/early.ek.pem", "vm/late.aik.pem"} {
		if text, err := os.ReadFile(s.path("certificates", name)); err != nil || !strings.Contains(string(text), "BEGIN CERTIFICATE") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
