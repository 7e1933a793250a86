// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/coproc/coproctest/tpmtest"
)

// wrongPassword gives a slot whose TPM counts one wrong password and
// forgets it after a second, which is the shortest time there is.
func wrongPassword(t *testing.T, r *rig) {
	t.Helper()
	r.powerOn(r.run)
	r.tpm.Startup()
	// TPM2_DictionaryAttackParameters (Part 3, 25.3): 5 tries, 1 s, 1 s.
	cmd := []byte{0x80, 0x02, 0, 0, 0, 39, 0, 0, 0x01, 0x3a, 0x40, 0, 0, 0x0a,
		0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0,
		0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 1}
	if rc := r.tpm.Code(cmd); rc != tpm2.TPMRCSuccess {
		t.Fatalf("DictionaryAttackParameters: %v", rc)
	}
	sealed := r.tpm.SealWithPassword(r.tpm.CreateSRK(), "secret", "right")
	if _, err := r.tpm.Unseal(sealed, "wrong"); err == nil {
		t.Fatal("a wrong password unseals")
	}
}

// TestRestoreWhenLockoutHeals kills the worker and restores it when the time
// has come to forget a wrong password: libtpms stores that in whatever command
// comes next, and that is one of the restore's own.
func TestRestoreWhenLockoutHeals(t *testing.T) {
	for _, journal := range []bool{false, true} {
		r := newRig(t)
		wrongPassword(t, r)
		var want tpmtest.Digest
		if journal {
			r.tpm.Extend(10, "journaled")
			want = tpmtest.Extended(want, "journaled")
		}
		r.shut()
		time.Sleep(1500 * time.Millisecond)
		r.open()
		if reply, err := r.slot.powerOn(r.run); err != nil || !reply.Resumed {
			t.Fatalf("power-on with journal %t: %+v, %v", journal, reply, err)
		}
		if got := r.tpm.PCR(10); got != want {
			t.Errorf("PCR 10 = %x, want %x", got, want)
		}
		if n := r.tpm.Property(tpm2.TPMPTLockoutCounter); n != 0 {
			t.Errorf("lockout counter = %d, want 0", n)
		}
		r.shut()
	}
}
