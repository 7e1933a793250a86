// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"hwvtpm/coproc"
	"hwvtpm/coproc/coproctest"
	"hwvtpm/coproc/pcie"
)

// testConformance: the card is as any other.
func testConformance(t *testing.T) {
	coproctest.Run(t, func(t *testing.T) coproc.Device { return openCard(t, viaKernel()) })
}

// testAccessByKernel: all works without a mapped BAR too.
func testAccessByKernel(t *testing.T) {
	r := newRig(t, pcie.VFIOWith(card, pcie.VFIOOptions{Interface: iface, NoMap: true}))
	r.tpm.Extend(10, "event")
	if got, want := r.tpm.PCR(10), tpmDigest("event"); got != want {
		t.Errorf("PCR 10 = %x, want %x", got, want)
	}
}
