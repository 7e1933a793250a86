// SPDX-License-Identifier: Apache-2.0

package coproctest

import (
	"bytes"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/coproc/coproctest/tpmtest"
)

// cmdGetRandom is TPM2_GetRandom of 16 bytes.
var cmdGetRandom = []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x7b, 0, 16}

// world is something of every kind of state a guest can have.
type world struct {
	pcr    tpmtest.Digest
	key    tpmtest.Object
	policy tpmtest.Policy
	digest tpmtest.Digest
	nv     []byte
}

const worldPCR = 16

// makeWorld leaves some of each kind of state in the TPM.
func makeWorld(c *card) *world {
	c.t.Helper()
	w := &world{nv: []byte("kept for ever")}
	c.tpm.Extend(worldPCR, "event")
	w.pcr = c.tpm.PCR(worldPCR)
	w.key = c.tpm.CreateSRK()
	w.policy = c.tpm.StartPolicy()
	c.tpm.Require(w.policy, tpm2.TPMCCUnseal)
	w.digest, _ = c.tpm.PolicyDigest(w.policy)
	c.tpm.DefineNV(tpmtest.NVBase, len(w.nv))
	c.tpm.WriteNV(tpmtest.NVBase, w.nv)
	return w
}

// checkAll checks that everything is as makeWorld left it.
func (w *world) checkAll(c *card) {
	c.t.Helper()
	if got := c.tpm.PCR(worldPCR); got != w.pcr {
		c.t.Errorf("PCR %d = %x, want %x", worldPCR, got, w.pcr)
	}
	if !c.tpm.Loaded(w.key) {
		c.t.Errorf("the transient key is gone")
	}
	if d, ok := c.tpm.PolicyDigest(w.policy); !ok || d != w.digest {
		c.t.Errorf("policy digest = %x, %t, want %x", d, ok, w.digest)
	}
	w.checkNV(c)
}

func (w *world) checkNV(c *card) {
	c.t.Helper()
	if got := c.tpm.ReadNV(tpmtest.NVBase, len(w.nv)); !bytes.Equal(got, w.nv) {
		c.t.Errorf("NV = %q, want %q", got, w.nv)
	}
}

// checkCycled checks that the TPM is as after _TPM_Init, starts it, and checks
// that only NV is left.
func (w *world) checkCycled(c *card) {
	c.t.Helper()
	if rc := c.tpm.Code(cmdGetRandom); rc != tpm2.TPMRCInitialize {
		c.t.Errorf("GetRandom before Startup: %v, want TPM_RC_INITIALIZE", rc)
	}
	c.tpm.Startup()
	if got := c.tpm.PCR(worldPCR); got != (tpmtest.Digest{}) {
		c.t.Errorf("PCR %d = %x after a power cycle, want zero", worldPCR, got)
	}
	if c.tpm.Loaded(w.key) {
		c.t.Errorf("the transient key outlived a power cycle")
	}
	if _, ok := c.tpm.PolicyDigest(w.policy); ok {
		c.t.Errorf("the session outlived a power cycle")
	}
	w.checkNV(c)
}

func testPowerOnFresh(t *testing.T, c *card) {
	c.powerOn(runA, false)
	if rc := c.tpm.Code(cmdGetRandom); rc != tpm2.TPMRCInitialize {
		t.Errorf("GetRandom before Startup: %v, want TPM_RC_INITIALIZE", rc)
	}
	c.tpm.Startup()
	if a, b := c.tpm.Random(16), c.tpm.Random(16); len(a) != 16 || bytes.Equal(a, b) {
		t.Errorf("GetRandom = %x, then %x", a, b)
	}
}

func testPowerOnSameRun(_ *testing.T, c *card) {
	c.start()
	w := makeWorld(c)
	c.powerOn(runA, true)
	w.checkAll(c)
}

func testPowerOnOtherRun(_ *testing.T, c *card) {
	c.start()
	w := makeWorld(c)
	c.powerOn(runB, false)
	w.checkCycled(c)
}

func testReopenSameRun(t *testing.T, c *card) {
	c.start()
	w := makeWorld(c)
	before, _ := c.tpm.Clock()
	c.reopen()
	c.powerOn(runA, true)
	w.checkAll(c)
	if after, _ := c.tpm.Clock(); after < before {
		t.Errorf("clock went back from %d to %d", before, after)
	}
}

func testReopenOtherRun(_ *testing.T, c *card) {
	c.start()
	w := makeWorld(c)
	c.reopen()
	c.powerOn(runB, false)
	w.checkCycled(c)
}

func testReset(_ *testing.T, c *card) {
	c.start()
	w := makeWorld(c)
	c.reset()
	w.checkCycled(c)
	c.powerOn(runA, true)
}

func testResetIdempotent(t *testing.T, c *card) {
	c.powerOn(runA, false)
	c.reset()
	c.tpm.Startup()
	_, before := c.tpm.Clock()
	c.reset()
	c.reset()
	c.powerOn(runA, false) // nothing ran: still as after _TPM_Init
	c.tpm.Startup()
	if _, after := c.tpm.Clock(); after != before+1 {
		t.Errorf("reset count went from %d to %d over two resets in a row, want one more", before, after)
	}
}

// testSleep: a guest that slept with TPM2_Shutdown(STATE) finds its PCRs again
// after the reset, and so does one that hibernated into another run.
func testSleep(t *testing.T, c *card) {
	c.start()
	c.tpm.Extend(0, "firmware")
	pcr := c.tpm.PCR(0)
	for _, tc := range []struct {
		name string
		wake func()
	}{
		{"reset", c.reset},
		{"other run", func() { c.powerOn(runB, false) }},
		{"reopen, other run", func() { c.reopen(); c.powerOn(runA, false) }},
	} {
		if _, err := (tpm2.Shutdown{ShutdownType: tpm2.TPMSUState}).Execute(c.tpm); err != nil {
			t.Fatalf("%s: Shutdown(STATE): %v", tc.name, err)
		}
		tc.wake()
		if _, err := (tpm2.Startup{StartupType: tpm2.TPMSUState}).Execute(c.tpm); err != nil {
			t.Fatalf("%s: Startup(STATE): %v", tc.name, err)
		}
		if got := c.tpm.PCR(0); got != pcr {
			t.Errorf("%s: PCR 0 = %x, want %x", tc.name, got, pcr)
		}
	}
}

// testResetNoAttack: a reset without TPM2_Shutdown after the use of a password
// must not count as a wrong password (Part 1, "Dictionary Attack Protection").
func testResetNoAttack(t *testing.T, c *card) {
	c.start()
	for range 3 {
		o := c.tpm.SealWithPassword(c.tpm.CreateSRK(), "secret", "right")
		if got, err := c.tpm.Unseal(o, "right"); got != "secret" || err != nil {
			t.Fatalf("Unseal = %q, %v", got, err)
		}
		c.reset()
		c.tpm.Startup()
	}
	if n := c.tpm.Property(tpm2.TPMPTLockoutCounter); n != 0 {
		t.Errorf("lockout counter = %d after resets, want 0", n)
	}
}
