// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto/x509"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"hwvtpm/control/ca"
)

var update = flag.Bool("update", false, "write testdata anew")

// golden reads a file of testdata: evidence that was made once, which every version
// of the verifier has to read.
func golden(t testing.TB, name string) []byte {
	t.Helper()
	return ok[[]byte](t)(os.ReadFile(filepath.Join("testdata", name)))
}

func goldenVerifier(t testing.TB) *Verifier {
	v := &Verifier{Roots: x509.NewCertPool(), Now: now}
	for _, c := range ok[[]*x509.Certificate](t)(ca.ParsePEM(golden(t, "root.pem"))) {
		v.Roots.AddCert(c)
	}
	for _, name := range []string{"root.crl", "attestation.crl"} {
		v.Lists = append(v.Lists, ok[*x509.RevocationList](t)(x509.ParseRevocationList(golden(t, name))))
	}
	return v
}

func writeGolden(t *testing.T) {
	m := newSite(t, newAuthority(t), "host-1").newMachine("vm-1")
	lists := m.lists()
	for name, data := range map[string][]byte{
		"evidence.json": ok[[]byte](t)(m.answer(nonce).Marshal()),
		"root.pem":      ca.PEM(m.authority.Root.Certificate),
		"root.crl":      lists[0].Raw, "attestation.crl": lists[1].Raw,
	} {
		if err := os.WriteFile(filepath.Join("testdata", name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestGoldenEvidence(t *testing.T) {
	if *update {
		writeGolden(t)
	}
	text := golden(t, "evidence.json")
	ev := ok[*Evidence](t)(Parse(text))
	if again := ok[[]byte](t)(ev.Marshal()); !bytes.Equal(again, text) {
		t.Error("evidence is written otherwise than it was")
	}
	v := goldenVerifier(t)
	r := ok[*Result](t)(v.Verify(ev, nonce))
	if !r.OK || r.Machine != "vm-1" || r.Host != "host-1" || r.Card == "" || r.Slot == "" || r.VMClock == nil || r.HostClock == nil {
		t.Errorf("result %+v", r)
	}
}

// Learned from one machine, a policy takes that one and no other boot; learned from
// both, both.
func TestLearn(t *testing.T) {
	v, ev := goldenVerifier(t), ok[*Evidence](t)(Parse(golden(t, "evidence.json")))
	p, _, err := v.Learn(ev, nonce)
	if err != nil {
		t.Fatal(err)
	}
	if !p.Host.SecureBoot || p.VM.SecureBoot || len(p.Machines) != 1 || len(p.Card.Firmware) != 1 || len(p.VM.PCRs["sha256"]) != 8 {
		t.Errorf("learned %+v", p)
	}
	p = ok[*Policy](t)(ParsePolicy(ok[[]byte](t)(p.Marshal())))
	v.Policy = p
	if r := ok[*Result](t)(v.Verify(ev, nonce)); !r.OK || r.Get(ClaimPolicyHost).State != Held || r.Get(ClaimPolicyVM).State != Held {
		t.Errorf("learned policy does not take what it was learned from: %+v", r.Claims)
	}
	other := newSite(t, newAuthority(t), "host-2").newMachine("vm-2")
	second := other.answer(nonce)
	w := other.verifier()
	w.Policy = p
	if r := ok[*Result](t)(w.Verify(second, nonce)); r.OK || r.Get(ClaimPolicyNames).State != Failed {
		t.Errorf("a machine that was not learned: %+v", r.Claims)
	}
	both, _, err := w.Learn(second, nonce)
	if err != nil {
		t.Fatal(err)
	}
	w.Policy = both
	if r := ok[*Result](t)(w.Verify(second, nonce)); !r.OK {
		t.Errorf("a machine that was learned: %+v", r.Claims)
	}
	v.Policy = both
	if r := ok[*Result](t)(v.Verify(ev, nonce)); !r.OK {
		t.Errorf("a machine that was learned before: %+v", r.Claims)
	}
}

func TestLearnNothingFromBadEvidence(t *testing.T) {
	for name, change := range map[string]func(*Verifier, *Evidence){
		"other values": func(_ *Verifier, ev *Evidence) { ev.Host.PCRs.Get("sha256", 0)[0] ^= 1 },
		"foreign root": func(v *Verifier, _ *Evidence) { v.Roots = x509.NewCertPool() },
		"mode off":     func(_ *Verifier, ev *Evidence) { ev.PCRMap, ev.Host = ModeOff, nil },
		"wrong log":    func(_ *Verifier, ev *Evidence) { ev.Host.Log = ev.Host.Log[:200] },
	} {
		v, ev := goldenVerifier(t), ok[*Evidence](t)(Parse(golden(t, "evidence.json")))
		change(v, ev)
		if p, _, err := v.Learn(ev, nonce); err == nil {
			t.Errorf("%s: learned %+v", name, p)
		}
	}
}
