// SPDX-License-Identifier: Apache-2.0

package coproctest

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/coproctest/tpmtest"
)

// hostPCRs gives the PCRs of a host, of which the SHA-256 bank is known.
func hostPCRs(t *testing.T, host byte) (m coproc.PCRMap) {
	t.Helper()
	var values [][]byte
	for pcr := range abi.HostPCRs {
		values = append(values, bytes.Repeat([]byte{host + byte(pcr)}, 32))
	}
	if err := m.SetBank(abi.BankSHA256, values); err != nil {
		t.Fatal(err)
	}
	return m
}

func (c *card) mapPCRs(m coproc.PCRMap) error {
	c.t.Helper()
	p, ok := c.slot.(coproc.PCRMapper)
	if !ok {
		c.t.Fatal("the slot is no PCRMapper")
	}
	return p.MapPCRs(c.t.Context(), m)
}

// checkPCRs checks that PCR 0-7 are those of m.
func (c *card) checkPCRs(when string, m *coproc.PCRMap) {
	c.t.Helper()
	for pcr := range abi.HostPCRs {
		if got := c.tpm.PCR(pcr); !bytes.Equal(got[:], m.Value(abi.BankSHA256, pcr)) {
			c.t.Errorf("%s: PCR %d = %x, want %x", when, pcr, got, m.Value(abi.BankSHA256, pcr))
		}
	}
}

// testMapPCRs: PCR 0-7 are the host's from the Startup on, through resets and other
// workers, and no longer than the run.
func testMapPCRs(t *testing.T, c *card) {
	host := hostPCRs(t, 0x10)
	c.powerOn(runA, false)
	if err := c.mapPCRs(host); err != nil {
		t.Fatalf("MapPCRs: %v", err)
	}
	c.tpm.Startup()
	c.checkPCRs("after Startup", &host)
	w := makeWorld(c)
	c.reopen()
	c.powerOn(runA, true)
	if err := c.mapPCRs(host); err != nil {
		t.Errorf("MapPCRs of what is in force: %v", err)
	}
	w.checkAll(c)
	c.checkPCRs("with another worker", &host)
	c.reset()
	w.checkCycled(c)
	c.checkPCRs("after a reset", &host)
	c.powerOn(runB, false)
	c.tpm.Startup()
	if got := c.tpm.PCR(0); got != (tpmtest.Digest{}) {
		t.Errorf("PCR 0 of another run = %x, want zero", got)
	}
	c.tpm.Extend(0, "it is the guest's")
}

// testMappedPCRsStay: the guest changes none of them, at any locality, and all others
// as ever.
func testMappedPCRsStay(t *testing.T, c *card) {
	host := hostPCRs(t, 0x20)
	c.powerOn(runA, false)
	if err := c.mapPCRs(host); err != nil {
		t.Fatalf("MapPCRs: %v", err)
	}
	c.tpm.Startup()
	for locality := range uint8(5) {
		tpm := tpmtest.New(t, func(cmd []byte) ([]byte, error) { return c.sendAt(locality, cmd) })
		for pcr := range abi.HostPCRs {
			at := tpm2.AuthHandle{Handle: tpm2.TPMHandle(pcr), Auth: tpm2.PasswordAuth(nil)}
			_, extend := tpmtest.ExtendCommand(pcr, "x").Execute(tpm)
			_, event := tpm2.PCREvent{PCRHandle: at, EventData: tpm2.TPM2BEvent{Buffer: []byte("x")}}.Execute(tpm)
			_, reset := tpm2.PCRReset{PCRHandle: at}.Execute(tpm)
			for _, err := range []error{extend, event, reset} {
				if !errors.Is(err, tpm2.TPMRCLocality) {
					t.Errorf("change of PCR %d at locality %d: %v, want TPM_RC_LOCALITY", pcr, locality, err)
				}
			}
		}
	}
	c.checkPCRs("after all that", &host)
	c.tpm.Extend(8, "x")
	if got := c.tpm.PCR(8); got != tpmtest.Extended(tpmtest.Digest{}, "x") {
		t.Errorf("PCR 8 = %x", got)
	}
}

// testMapPCRsInTime: a guest that runs keeps the PCRs that it has seen.
func testMapPCRsInTime(t *testing.T, c *card) {
	host := hostPCRs(t, 0x30)
	if err := c.mapPCRs(host); !errors.Is(err, coproc.ErrUnsupported) {
		t.Errorf("MapPCRs before PowerOn: %v, want ErrUnsupported", err)
	}
	c.start()
	c.tpm.Extend(0, "x")
	pcr := c.tpm.PCR(0)
	if err := c.mapPCRs(host); !errors.Is(err, coproc.ErrUnsupported) {
		t.Errorf("MapPCRs after Startup: %v, want ErrUnsupported", err)
	}
	if got := c.tpm.PCR(0); got != pcr {
		t.Errorf("PCR 0 = %x, want %x", got, pcr)
	}
	c.reset()
	if err := c.mapPCRs(host); err != nil {
		t.Errorf("MapPCRs after a reset: %v", err)
	}
	c.tpm.Startup()
	c.checkPCRs("after the reset", &host)
}

// withHostPCRs puts the PCRs of a host in front of the slot; away is why there are none.
func (c *card) withHostPCRs(host *coproc.PCRMap, away *error) {
	c.t.Helper()
	s, err := coproc.WithHostPCRs(c.slot, func(context.Context) (coproc.PCRMap, error) { return *host, *away }, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	c.slot = s
}

// testWithHostPCRs: a slot that asks for the host's PCRs itself has those of the
// moment, and none that it was refused.
func testWithHostPCRs(t *testing.T, c *card) {
	host := hostPCRs(t, 0x40)
	var away error
	c.withHostPCRs(&host, &away)
	s := c.slot
	c.start()
	c.checkPCRs("after Startup", &host)
	host = hostPCRs(t, 0x50)
	c.reset()
	c.tpm.Startup()
	c.checkPCRs("after a reset", &host)
	st, err := s.(coproc.StateMover).SaveState(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	host = hostPCRs(t, 0x60)
	if _, err := s.(coproc.StateMover).LoadState(t.Context(), runB, st); err != nil {
		t.Fatal(err)
	}
	c.checkPCRs("on another host", &host)
	away = errors.New("no host")
	c.reset()
	if _, err := c.send(cmdGetRandom); !errors.Is(err, coproc.ErrFailed) || !errors.Is(err, away) {
		t.Errorf("Execute without the host's PCRs: %v, want ErrFailed", err)
	}
	away = nil
	if _, err := c.send(cmdGetRandom); !errors.Is(err, coproc.ErrFailed) {
		t.Errorf("Execute when they are there: %v, want ErrFailed until a reset", err)
	}
	c.reset()
	c.tpm.Startup()
	c.checkPCRs("at last", &host)
}

// testBootEvidence: a guest reads what its host says of its boot, from its Startup on,
// and no longer than the run.
func testBootEvidence(t *testing.T, c *card) {
	host := func(_ context.Context, run coproc.RunID) ([]byte, error) { return bytes.Repeat(run[:1], 100), nil }
	s, err := coproc.WithBootEvidence(c.slot, host, func(err error) {
		if err != nil {
			t.Errorf("boot evidence: %v", err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	plain := c.slot
	c.slot = s
	read := func(when string, run coproc.RunID) {
		t.Helper()
		want, _ := host(t.Context(), run)
		if got := c.tpm.ReadNV(abi.BootEvidenceIndex, 100); !bytes.Equal(got, want) {
			t.Errorf("%s: the index holds %x..., want %x...", when, got[:4], want[:4])
		}
	}
	c.start()
	read("after Startup", runA)
	c.tpm.Extend(0, "it is the guest's")
	c.reset()
	c.tpm.Startup()
	read("after a reset", runA)
	c.powerOn(runB, false)
	c.tpm.Startup()
	read("in another run", runB)
	shower := plain.(coproc.EvidenceShower)
	if err := shower.ShowBootEvidence(t.Context(), []byte("late")); !errors.Is(err, coproc.ErrUnsupported) {
		t.Errorf("evidence for a guest that runs: %v, want ErrUnsupported", err)
	}
	for _, size := range []int{0, abi.MaxBootEvidence + 1} {
		if err := shower.ShowBootEvidence(t.Context(), make([]byte, size)); err == nil {
			t.Errorf("evidence of %d bytes is taken", size)
		}
	}
	read("after refusals", runB)
}
