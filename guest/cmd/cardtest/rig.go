// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"time"

	"hwvtpm/coproc"
	"hwvtpm/coproc/coproctest"
	"hwvtpm/coproc/coproctest/tpmtest"
	"hwvtpm/coproc/pcie"
)

// hang guards every wait. An emulated processor is slow.
const hang = 2 * time.Minute

// openCard opens the card with a new TPM in the slot of the tests.
func openCard(t *testing.T, open pcie.Opener) *pcie.Card {
	t.Helper()
	c, err := pcie.Open(pcie.Config{Open: open, Key: accessKey, AdminTimeout: hang})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	done := false
	defer func() {
		if !done { // the next test needs it
			c.Close()
		}
	}()
	if err := renew(t, c); err != nil {
		t.Fatalf("making a new TPM: %v", err)
	}
	done = true
	return c
}

// rig is the card with a TPM that runs.
type rig struct {
	t    *testing.T
	taps *taps
	slot coproc.Slot
	tpm  *tpmtest.TPM
}

func newRig(t *testing.T, open pcie.Opener) *rig {
	t.Helper()
	r := &rig{t: t, taps: &taps{open: open}}
	c := openCard(t, r.taps.Open)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	var err error
	if r.slot, err = c.OpenSlot(t.Context(), coproctest.SlotName); err != nil {
		t.Fatalf("OpenSlot: %v", err)
	}
	if _, err := r.slot.PowerOn(t.Context(), coproc.RunID{1}); err != nil {
		t.Fatalf("PowerOn: %v", err)
	}
	r.tpm = tpmtest.New(t, r.execute)
	r.tpm.Startup()
	return r
}

func (r *rig) execute(cmd []byte) ([]byte, error) {
	resp := make([]byte, coproc.MaxTransfer)
	n, err := r.slot.Execute(r.t.Context(), coproc.Command{Bytes: cmd}, resp)
	return resp[:n], err
}

// restarts counts how often the slot had to be started again.
func (r *rig) restarts() uint64 {
	r.t.Helper()
	h, err := r.slot.Health(r.t.Context())
	if err != nil {
		r.t.Fatalf("Health: %v", err)
	}
	return uint64(h.Restarts)
}
