// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/sys/unix"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/admin"
	"hwvtpm/coproc/coproctest/tpmtest"
)

// TestWhatGuestKnowsOfItsHostStays: PCRs that are mapped, and evidence, outlast a parked
// slot, a dead worker and a dead card; and none of them lets the guest change a PCR.
func TestWhatGuestKnowsOfItsHostStays(t *testing.T) {
	d := newDaemon(t).start()
	d.create("a")
	guest := d.open(d.device(), "a")
	defer guest.slot.Close()
	var m coproc.PCRMap
	value := bytes.Repeat([]byte{0xc5}, 32)
	if err := m.SetBank(abi.BankSHA256, slices.Repeat([][]byte{value}, abi.HostPCRs)); err != nil {
		t.Fatal(err)
	}
	evidence := []byte("what the host says")
	err := errors.Join(guest.slot.(coproc.PCRMapper).MapPCRs(t.Context(), m),
		guest.slot.(coproc.EvidenceShower).ShowBootEvidence(t.Context(), evidence))
	if err != nil {
		t.Fatal(err)
	}
	info := func(a *admin.Client) abi.SlotInfo {
		t.Helper()
		s, err := a.Show(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	park := func() {
		a := d.admin()
		if err := a.Park(t.Context(), info(a)); err != nil {
			t.Errorf("park: %v", err)
		}
	}
	park() // before the guest's Startup, which is when the worker puts both in
	guest.Startup()
	for _, tc := range []struct {
		name string
		do   func()
	}{
		{"Startup", func() {}},
		{"parking", park},
		{"the worker's death", func() { unix.Kill(int(info(d.admin()).WorkerPID), unix.SIGKILL) }},
		{"the card's death", func() { d.end(unix.SIGKILL); d.start() }},
	} {
		tc.do()
		for pcr := range abi.HostPCRs {
			if got := guest.PCR(pcr); !bytes.Equal(got[:], value) {
				t.Errorf("after %s: PCR %d = %x", tc.name, pcr, got)
			}
			if _, err := tpmtest.ExtendCommand(pcr, "mine").Execute(guest); !errors.Is(err, tpm2.TPMRCLocality) {
				t.Errorf("after %s: PCR_Extend(%d): %v, want TPM_RC_LOCALITY", tc.name, pcr, err)
			}
		}
		if got := guest.ReadNV(abi.BootEvidenceIndex, len(evidence)); !bytes.Equal(got, evidence) {
			t.Errorf("after %s: evidence %q", tc.name, got)
		}
	}
}
