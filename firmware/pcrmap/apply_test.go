// SPDX-License-Identifier: Apache-2.0

package pcrmap

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/coproc/abi"
)

func TestSelfTest(t *testing.T) {
	r := started(t)
	if err := SelfTest(r.eng); err != nil {
		t.Fatal(err)
	}
}

// TestApply: the PCRs are the host's, and all else that a guest has goes on.
func TestApply(t *testing.T) {
	r := started(t)
	r.Extend(3, "a guest's")
	r.Extend(10, "kept")
	srk := r.CreateSRK()
	hmac := r.HMACSession()
	r.DefineCounter(0x01800000, true)
	r.Increment(0x01800000)
	before := r.reading()
	m := mapped(t)
	r.apply(m)
	after := r.reading()
	if err := compare(before, after, m); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(after.values[1][3], m.Value(abi.BankSHA256, 3)) || !bytes.Equal(after.values[0][3], abi.UnmappedPCR(abi.BankSHA1)) {
		t.Errorf("PCR 3 = %x and %x", after.values[1][3], after.values[0][3])
	}
	if !r.Loaded(srk) {
		t.Error("a key is gone")
	}
	if err := r.UseSession(hmac, srk); err != nil {
		t.Errorf("HMAC session: %v", err)
	}
	r.Increment(0x01800000)
	r.apply(m) // again, as after a sleep
	if err := compare(after, r.reading(), m); err != nil {
		t.Error(err)
	}
}

// TestOpenPolicies: what was proven about the PCRs before is not proven about
// those after.
func TestOpenPolicies(t *testing.T) {
	r := started(t)
	srk := r.CreateSRK()
	loaded, policy := r.pcrSession()
	outside, _ := r.pcrSession()
	secret := r.seal(srk, policy)
	saved, err := tpm2.ContextSave{SaveHandle: outside.Handle()}.Execute(r)
	if err != nil {
		t.Fatal(err)
	}
	r.apply(mapped(t))
	if err := r.unseal(secret, loaded); !errors.Is(err, tpm2.TPMRCPCRChanged) {
		t.Errorf("unseal with a session from before: %v, want TPM_RC_PCR_CHANGED", err)
	}
	if _, err := (tpm2.ContextLoad{Context: saved.Context}).Execute(r); err != nil {
		t.Fatal(err)
	}
	if err := r.unseal(secret, outside); !errors.Is(err, tpm2.TPMRCPCRChanged) {
		t.Errorf("unseal with a session that was outside: %v, want TPM_RC_PCR_CHANGED", err)
	}
	fresh, _ := r.pcrSession()
	if err := r.unseal(secret, fresh); !errors.Is(err, tpm2.TPMRCPolicyFail) {
		t.Errorf("unseal with a new session: %v, want TPM_RC_POLICY_FAIL", err)
	}
}

// TestReadsLeaveNothing: not even a TPM that audits TPM2_PCR_Read has noticed ours.
func TestReadsLeaveNothing(t *testing.T) {
	r := started(t)
	for _, cmd := range [][]byte{
		// TPM2_SetCommandCodeAuditStatus: TPM2_PCR_Read, by the owner.
		{0x80, 0x02, 0, 0, 0, 41, 0, 0, 0x01, 0x40, 0x40, 0, 0, 1, 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0,
			0, 0x10, 0, 0, 0, 1, 0, 0, 0x01, 0x7e, 0, 0, 0, 0},
		pcrRead,
	} {
		if rc := r.Code(cmd); rc != 0 {
			t.Fatalf("%x: %v", cmd, rc)
		}
	}
	digest := r.auditDigest()
	r.apply(mapped(t))
	if got := r.auditDigest(); !bytes.Equal(got, digest) {
		t.Errorf("audit digest %x, was %x", got, digest)
	}
	if rc := r.Code(pcrRead); rc != 0 || bytes.Equal(r.auditDigest(), digest) {
		t.Errorf("TPM2_PCR_Read (%v) is not audited: the test shows nothing", rc)
	}
}

// pcrRead is TPM2_PCR_Read of PCR 0.
var pcrRead = []byte{0x80, 0x01, 0, 0, 0, 20, 0, 0, 0x01, 0x7e, 0, 0, 0, 1, 0, 0x0b, 3, 1, 0, 0}

// auditDigest is what the state has after the counter of context and 2B's size.
func (r *rig) auditDigest() []byte {
	r.t.Helper()
	s, err := parse(r.volatile())
	if err != nil {
		r.t.Fatal(err)
	}
	const digest = 32
	return bytes.Clone(s.blob[s.counter-4-digest : s.counter-4])
}

// TestBankSwitchedOff: a bank that the TPM does not use is no hindrance.
func TestBankSwitchedOff(t *testing.T) {
	r := started(t)
	// TPM2_PCR_Allocate: SHA-1 off, SHA-384 and SHA-512 off, SHA-256 on.
	cmd := []byte{0x80, 0x02, 0, 0, 0, 55, 0, 0, 0x01, 0x2b, 0x40, 0, 0, 0x0c, 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0,
		0, 0, 0, 4, 0, 4, 3, 0, 0, 0, 0, 0x0b, 3, 0xff, 0xff, 0xff, 0, 0x0c, 3, 0, 0, 0, 0, 0x0d, 3, 0, 0, 0}
	if rc := r.Code(cmd); rc != 0 {
		t.Fatalf("PCR_Allocate: %v", rc)
	}
	if err := r.eng.Load(r.perm, nil); err != nil {
		t.Fatal(err)
	}
	r.Startup()
	m := mapped(t)
	r.apply(m)
	got := r.reading()
	if got.used != [len(banks)]bool{1: true} || !bytes.Equal(got.values[1][7], m.Value(abi.BankSHA256, 7)) {
		t.Errorf("banks in use %v, PCR 7 %x", got.used, got.values[1][7])
	}
}

func TestNotStarted(t *testing.T) {
	r := newRig(t)
	if err := Apply(r.eng, r.perm, mapped(t)); !errors.Is(err, ErrNotStarted) {
		t.Errorf("Apply before TPM2_Startup: %v, want ErrNotStarted", err)
	}
	r.Startup()
	r.Random(1)
}

// liar is a TPM that shows other PCRs than it has, or does not take a state back.
type liar struct {
	TPM
	load, reads       int
	failLoad, lieRead int
}

func (l *liar) Load(perm, vol []byte) error {
	if l.load++; l.load == l.failLoad {
		return errors.New("would not load")
	}
	return l.TPM.Load(perm, vol)
}

func (l *liar) Process(locality uint8, cmd, resp []byte) (int, bool, error) {
	n, stored, err := l.TPM.Process(locality, cmd, resp)
	if l.reads++; l.reads == l.lieRead {
		resp[n-1] ^= 1
	}
	return n, stored, err
}

// TestRefusalRestores: whatever does not fit, and whenever, leaves the TPM as it was.
func TestRefusalRestores(t *testing.T) {
	r := started(t)
	r.Extend(0, "before")
	before := r.reading()
	m := mapped(t)
	for _, l := range []*liar{
		{lieRead: 1}, {lieRead: 12}, {lieRead: 13}, {lieRead: 24}, {failLoad: 1}, {failLoad: 2},
	} {
		l.TPM = r.eng
		if err := Apply(l, r.perm, m); !errors.Is(err, ErrRefused) {
			t.Errorf("%+v: %v, want ErrRefused", l, err)
		}
		if after := r.reading(); after.counter != before.counter || !bytes.Equal(after.values[1][0], before.values[1][0]) {
			t.Errorf("%+v: PCR 0 = %x", l, after.values[1][0])
		}
	}
	r.apply(m)
}

// TestNoWayBack: a TPM that takes neither state is not said to be as it was.
func TestNoWayBack(t *testing.T) {
	r := started(t)
	l := &liar{TPM: brick{r.eng}, lieRead: 1}
	if err := Apply(l, r.perm, mapped(t)); err == nil || errors.Is(err, ErrRefused) {
		t.Errorf("Apply: %v, want an error that is no refusal", err)
	}
}

type brick struct{ TPM }

func (brick) Load([]byte, []byte) error { return errors.New("broken") }

func BenchmarkApply(b *testing.B) {
	r := started(b)
	m := mapped(b)
	for b.Loop() {
		r.apply(m)
	}
}
