// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto"
	"encoding/hex"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	goattest "github.com/google/go-attestation/attest"

	"hwvtpm/control/ca"
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

// openssl and tpm2_checkquote judge the pieces, by the recipes of
// docs/attestation.md.
func TestStockToolsAgree(t *testing.T) {
	if os.Getenv("HWVTPM_TEST_ROOT") != "1" {
		t.Skip("needs openssl and tpm2-tools: set HWVTPM_TEST_ROOT=1 (tier test-root)")
	}
	m := newSite(t, newAuthority(t), "host-1").newMachine("vm-1")
	ev, dir := m.answer(nonce), t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	run := func(good bool, name string, args ...string) {
		t.Helper()
		out, err := exec.Command(name, args...).CombinedOutput()
		if (err == nil) != good {
			t.Errorf("%s %v: %v\n%s", name, args, err, out)
		}
	}
	root := write("root.pem", ca.PEM(m.authority.Root.Certificate))
	vm, binding := write("vm.pem", []byte(ev.VM.Chain)), write("binding.pem", []byte(ev.Binding.Chain))
	for _, path := range []string{vm, binding} {
		run(true, "openssl", "verify", "-ignore_critical", "-attime", "1793534400", "-CAfile", root, "-untrusted", path, path)
		run(false, "openssl", "verify", "-ignore_critical", "-attime", "1893534400", "-CAfile", root, "-untrusted", path, path)
	}
	fresh := HostNonce(nonce, ev.VM.Quote.Attest)
	for _, l := range []struct {
		name  string
		key   crypto.PublicKey
		layer *Layer
		nonce []byte
	}{{"vm", m.aik.pub, &ev.VM.Layer, nonce}, {"host", m.hostAIK.pub, ev.Host, fresh[:]}} {
		key := write(l.name+".key", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki(t, l.key)}))
		msg, sig := write(l.name+".msg", l.layer.Quote.Attest), write(l.name+".sig", l.layer.Quote.Signature)
		run(true, "tpm2_checkquote", "-u", key, "-m", msg, "-s", sig, "-g", "sha256", "-q", hex.EncodeToString(l.nonce))
		run(false, "tpm2_checkquote", "-u", key, "-m", msg, "-s", sig, "-g", "sha256", "-q", "00")
	}
}

// BenchmarkGoAttestation is the check of one quote and its values, to be compared
// with quote-alone.
func BenchmarkGoAttestation(b *testing.B) {
	m := newSite(b, newAuthority(b), "host-1").newMachine("vm-1")
	l := m.aik.layer(nonce, selectionOnly("sha256"))
	ak, pcrs := &goattest.AKPublic{Public: m.aik.pub, Hash: crypto.SHA256}, bankPCRs(l.PCRs, "sha256")
	q := goattest.Quote{Quote: l.Quote.Attest, Signature: l.Quote.Signature}
	b.Run("go-attestation", func(b *testing.B) {
		for b.Loop() {
			if err := ak.Verify(q, pcrs, nonce); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("ours", func(b *testing.B) {
		for b.Loop() {
			opened, err := openQuote(m.aik.pub, &l.Quote)
			if err == nil {
				err = opened.checkPCRs(l.PCRs, []int{0, 1, 2, 3, 4, 5, 6, 7})
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}
