// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/coproctest/tpmtest"
)

// guest is a guest's life with every kind of state in it. At every step it
// checks what a lost, doubled or undone command would change.
func guest(t *testing.T, r *rig) {
	tpm := r.tpm
	r.powerOn([abi.RunIDSize]byte{1})
	tpm.Startup()
	seen := map[string]bool{}
	random := func() {
		b := string(tpm.Random(16))
		if seen[b] {
			t.Errorf("random number %x came twice", b)
		}
		seen[b] = true
	}
	var want tpmtest.Digest
	extend := func(event string) {
		tpm.Extend(10, event)
		want = tpmtest.Extended(want, event)
		if got := tpm.PCR(10); got != want {
			t.Fatalf("PCR 10 after %s = %x, want %x", event, got, want)
		}
	}
	random()
	extend("one")
	srk := tpm.CreateSRK()
	session := tpm.HMACSession()
	random()
	extend("two")
	extend("three")
	use := func() {
		if err := tpm.UseSession(session, srk); err != nil {
			t.Fatalf("use of a session: %v", err)
		}
	}
	use()
	sealed := tpm.SealWithPassword(srk, "secret", "right")
	policy := tpm.StartPolicy()
	tpm.Require(policy, tpm2.TPMCCUnseal)
	sealed = tpm.Swap(sealed)
	if got, err := tpm.Unseal(sealed, "right"); got != "secret" {
		t.Errorf("Unseal = %q, %v", got, err)
	}
	if d, ok := tpm.PolicyDigest(policy); !ok || d != policyUnseal {
		t.Errorf("policy digest = %x, %t, want %x", d, ok, policyUnseal)
	}
	tpm.Flush(sealed)
	tpm.DefineCounter(tpmtest.NVBase, false)
	tpm.DefineCounter(tpmtest.NVBase+1, true)
	count(tpm, tpmtest.NVBase, 1)
	count(tpm, tpmtest.NVBase+1, 1)
	n, m := counter(tpm, tpmtest.NVBase), counter(tpm, tpmtest.NVBase+1)
	use()
	random()
	count(tpm, tpmtest.NVBase, 3)
	count(tpm, tpmtest.NVBase+1, 3)
	extend("four")
	if got := counter(tpm, tpmtest.NVBase); got != n+3 {
		t.Errorf("counter = %d, want %d", got, n+3)
	}
	if got := counter(tpm, tpmtest.NVBase+1); got != m+3 {
		t.Errorf("orderly counter = %d, want %d", got, m+3)
	}
	use()
	random()
	r.reset()
	tpm.Startup()
	if got := tpm.PCR(10); got != (tpmtest.Digest{}) {
		t.Errorf("PCR 10 after reset = %x, want zero", got)
	}
	random()
	if got := counter(tpm, tpmtest.NVBase); got != n+3 {
		t.Errorf("counter after reset = %d, want %d", got, n+3)
	}
	want = tpmtest.Digest{}
	extend("five")
	if _, err := (tpm2.Shutdown{ShutdownType: tpm2.TPMSUState}).Execute(tpm); err != nil {
		t.Fatalf("Shutdown(STATE): %v", err)
	}
	r.reset()
	if _, err := (tpm2.Startup{StartupType: tpm2.TPMSUState}).Execute(tpm); err != nil {
		t.Fatalf("Startup(STATE): %v", err)
	}
	if got := tpm.PCR(10); got != want {
		t.Errorf("PCR 10 after a sleep = %x, want %x", got, want)
	}
	r.powerOn([abi.RunIDSize]byte{2})
	tpm.Startup()
	if got := counter(tpm, tpmtest.NVBase+1); got < m+3 {
		t.Errorf("orderly counter went back from %d to %d", m+3, got)
	}
}

// policyUnseal is the digest of PolicyCommandCode(TPM_CC_Unseal), Part 3, 23.11:
// SHA-256 of zeros, the code of PolicyCommandCode and that of Unseal.
var policyUnseal = sha256.Sum256(append(make([]byte, sha256.Size), 0, 0, 0x01, 0x6c, 0, 0, 0x01, 0x5e))

func counter(tpm *tpmtest.TPM, ix tpmtest.Index) uint64 {
	return binary.BigEndian.Uint64(tpm.ReadNV(ix, 8))
}

func count(tpm *tpmtest.TPM, ix tpmtest.Index, times int) {
	for range times {
		tpm.Increment(ix)
	}
}

// TestCrashAtEveryPoint kills the worker once at each failpoint of a guest's
// life, and the guest must not notice.
func TestCrashAtEveryPoint(t *testing.T) {
	crashEverywhere(t, 1, 7, guest)
}

// crashEverywhere kills the worker once at every step-th failpoint of a guest's life,
// or at fewer if tests are to be short.
func crashEverywhere(t *testing.T, step, short int, life func(*testing.T, *rig)) {
	t.Helper()
	if testing.Short() {
		step = short
	}
	for target := 1; ; target += step {
		r := newRig(t)
		r.target = target
		life(t, r)
		r.shut()
		if t.Failed() {
			t.Fatalf("with a crash at point %d", target)
		}
		if r.crashes == 0 {
			t.Logf("%d failpoints", r.points)
			return
		}
	}
}

// TestCrashInRecovery kills the worker again a few points after a first kill.
func TestCrashInRecovery(t *testing.T) {
	for target := 20; target < 300; target += 23 {
		for gap := 1; gap <= 5; gap++ {
			r := newRig(t)
			r.target = target
			r.again = gap
			guest(t, r)
			r.shut()
			if t.Failed() {
				t.Fatalf("with a crash at point %d and %d later", target, gap)
			}
		}
	}
}

// TestDiskFullIsLoggedOnce: a guest can try as often as it likes.
func TestDiskFullIsLoggedOnce(t *testing.T) {
	r := newRig(t)
	r.powerOn(r.run)
	r.tpm.Startup()
	r.tpm.DefineCounter(tpmtest.NVBase, false)
	var log bytes.Buffer
	r.slot.log = logger{w: &log}
	increment := tpm2.NVIncrement{
		AuthHandle: tpm2.TPMRHOwner,
		NVIndex:    tpm2.NamedHandle{Handle: tpm2.TPMHandle(tpmtest.NVBase), Name: nvName(t, r.tpm)},
	}
	for round := 1; round <= 2; round++ {
		r.diskFull = true
		for range 20 {
			if _, err := increment.Execute(r.tpm); err != tpm2.TPMRCNVUnavailable {
				t.Fatalf("NV_Increment on a full disk: %v, want TPM_RC_NV_UNAVAILABLE", err)
			}
		}
		if n := bytes.Count(log.Bytes(), []byte{'\n'}); n != round {
			t.Errorf("%d log lines after %d times without room, want one each", n, round)
		}
		r.diskFull = false
		count(r.tpm, tpmtest.NVBase, 1)
	}
}

// TestDiskFull: a command whose new state cannot be written is answered with
// TPM_RC_NV_UNAVAILABLE, and is as if it never was.
func TestDiskFull(t *testing.T) {
	r := newRig(t)
	r.powerOn(r.run)
	r.tpm.Startup()
	r.tpm.Extend(10, "kept")
	srk := r.tpm.CreateSRK()
	session := r.tpm.StartPolicy()
	r.tpm.Require(session, tpm2.TPMCCUnseal)
	r.tpm.Extend(10, "journaled")
	r.tpm.DefineCounter(tpmtest.NVBase, false)
	count(r.tpm, tpmtest.NVBase, 1)
	before, pcr := counter(r.tpm, tpmtest.NVBase), r.tpm.PCR(10)
	digest, _ := r.tpm.PolicyDigest(session)
	random := r.tpm.Random(16)

	r.diskFull = true
	increment := tpm2.NVIncrement{
		AuthHandle: tpm2.TPMRHOwner,
		NVIndex:    tpm2.NamedHandle{Handle: tpm2.TPMHandle(tpmtest.NVBase), Name: nvName(t, r.tpm)},
	}
	for range 2 {
		if _, err := increment.Execute(r.tpm); err != tpm2.TPMRCNVUnavailable {
			t.Fatalf("NV_Increment on a full disk: %v, want TPM_RC_NV_UNAVAILABLE", err)
		}
	}
	if got := r.tpm.PCR(10); got != pcr {
		t.Errorf("PCR 10 = %x, want %x", got, pcr)
	}
	if d, ok := r.tpm.PolicyDigest(session); !ok || d != digest || !r.tpm.Loaded(srk) {
		t.Errorf("session or key is lost: digest %x, %t", d, ok)
	}
	if string(r.tpm.Random(16)) == string(random) {
		t.Errorf("random numbers repeat after the undo")
	}
	if got := counter(r.tpm, tpmtest.NVBase); got != before {
		t.Errorf("counter = %d, want %d", got, before)
	}
	r.tpm.Extend(10, "goes on")

	r.diskFull = false
	count(r.tpm, tpmtest.NVBase, 1)
	if got := counter(r.tpm, tpmtest.NVBase); got != before+1 {
		t.Errorf("counter after room was made = %d, want %d", got, before+1)
	}
}

func nvName(t *testing.T, tpm *tpmtest.TPM) tpm2.TPM2BName {
	t.Helper()
	r, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(tpmtest.NVBase)}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	return r.NVName
}

// TestUnsureState: if nobody can say whether the new state will last, the slot
// fails, and a reset writes the state anew.
func TestUnsureState(t *testing.T) {
	r := newRig(t)
	r.powerOn(r.run)
	r.tpm.Startup()
	r.unsure = true
	if rc, err := r.send(cmdDefine); !errors.Is(err, errFailed) {
		t.Fatalf("command with an unsure write = %x, %v, want errFailed", rc, err)
	}
	r.unsure = false
	r.reset()
	r.tpm.Startup()
	r.tpm.Extend(10, "x")
	pcr := r.tpm.PCR(10)
	r.shut()
	r.open()
	if reply := r.powerOn(r.run); !reply.Resumed {
		t.Errorf("power-on = %+v, want a resume", reply)
	}
	if got := r.tpm.PCR(10); got != pcr {
		t.Errorf("PCR 10 = %x, want %x", got, pcr)
	}
}

// cmdDefine is TPM2_NV_DefineSpace of 0x01800000 by the owner, 4 bytes.
var cmdDefine = []byte{
	0x80, 0x02, 0, 0, 0, 45, 0, 0, 0x01, 0x2a, 0x40, 0, 0, 1,
	0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0,
	0, 0, 0, 14, 0x01, 0x80, 0, 0, 0, 0x0b, 0x00, 0x06, 0x00, 0x06, 0, 0, 0, 4}

// TestUndoDoesNotGoBackFurther: who can write the volatile file cannot use an undo
// to bring an earlier moment back.
func TestUndoDoesNotGoBackFurther(t *testing.T) {
	r := newRig(t)
	r.powerOn(r.run)
	r.tpm.Startup()
	r.tpm.Extend(10, "one")
	old, err := r.slot.vol.committed()
	if err != nil {
		t.Fatal(err)
	}
	r.tpm.Extend(10, "two")
	r.slot.vol.commit(old)
	r.diskFull = true
	if resp, err := r.send(cmdDefine); !errors.Is(err, errFailed) {
		t.Errorf("undo with a commit word that was set back: %x, %v, want errFailed", resp, err)
	}
}
