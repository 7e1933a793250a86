// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"os"
	"testing"

	"hwvtpm/control/ca"
	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/vtpm/bootevidence"
	"hwvtpm/vtpm/hostdoor"
)

// TestBootEvidence: what a machine's TPM is to show of its host's boot verifies with the
// host's certificate, fits into an NV index, and is of the run and the machine that it
// was asked for.
func TestBootEvidence(t *testing.T) {
	s := newSite(t)
	s.startHost()
	s.healthy()
	s.create("vm1")
	backend := &hostdoor.Client{Socket: s.path("backend.sock")}
	mapped, err := backend.PCRs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(s.path("certificates", "host.pem"))
	if err != nil {
		t.Fatal(err)
	}
	chain, err := ca.ParsePEM(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, run := range []coproc.RunID{{1}, {2}} {
		b, err := backend.BootEvidence(t.Context(), "vm1", run)
		if err != nil {
			t.Fatal(err)
		}
		e, err := bootevidence.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Verify(chain[0].PublicKey); err != nil {
			t.Error(err)
		}
		if e.Run != run || e.Slot != "vm1" || e.AIK != sha256.Sum256(chain[0].Raw) {
			t.Errorf("evidence of run %x of %s by %x", e.Run[:2], e.Slot, e.AIK)
		}
		for pcr := range abi.HostPCRs {
			if got, want := e.PCRs.Value(abi.BankSHA256, pcr), mapped.Value(abi.BankSHA256, pcr); string(got) != string(want) {
				t.Errorf("PCR %d is %x, and %x would be mapped", pcr, got, want)
			}
		}
	}
}
