// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"os"
	"testing"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/coproctest/tpmtest"
	"hwvtpm/firmware/wire"
)

// TestVolatileSetBackOverReset: a reset uses no number up, and still is a moment
// before which the volatile file cannot be set back, also if the guest has shut
// the TPM down in order, so that the reset changes nothing in its NV memory.
func TestVolatileSetBackOverReset(t *testing.T) {
	c := newFakeCard(t)
	c.create()
	k, l := c.boot(1)
	k.tpm.Extend(10, "of the last boot")
	k.execute([]byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x45, 0, 0}) // TPM2_Shutdown(CLEAR)
	old, err := os.ReadFile(c.volume)
	if err != nil {
		t.Fatal(err)
	}
	if done := k.ask(&abi.Submission{Op: abi.OpReset}); done.Status != abi.StatusOK {
		t.Fatalf("reset: %v", done.Status)
	}
	last := l.page.Seq()
	l.park()
	if err := os.WriteFile(c.volume, old, 0o600); err != nil {
		t.Fatal(err)
	}
	l = c.open(k, func(s *wire.Setup) { s.MinSeq = last; resumed(s) })
	if done := k.execute([]byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x44, 0, 0}); done.Status != abi.StatusFailed {
		t.Errorf("TPM2_Startup after a reset that was undone: %v %x, want failed", done.Status, done.Payload)
	}
	l.end()
}

// TestVolatileSetBackOverCard: the death of the card's process takes with it the last
// number that was on record. From then on a volatile file can be set back to an earlier
// moment of the same run that has the same permanent state, and to no other.
func TestVolatileSetBackOverCard(t *testing.T) {
	for name, tc := range map[string]struct {
		after   func(k *client) // the moment that is restored
		resumes bool
	}{
		"commands":       {func(k *client) { k.tpm.Extend(10, "two"); k.tpm.StartPolicy() }, true},
		"NV write":       {func(k *client) { k.tpm.DefineNV(tpmtest.NVBase, 4) }, false},
		"reset":          {func(k *client) { k.ask(&abi.Submission{Op: abi.OpReset}) }, false},
		"another run":    {func(k *client) { k.greet(2); k.greet(1) }, false},
		"first shutdown": {func(k *client) { k.execute([]byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x45, 0, 0}) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := newFakeCard(t)
			c.create()
			k, l := c.boot(1)
			k.tpm.Extend(10, "one")
			want := k.tpm.PCR(10)
			old, err := os.ReadFile(c.volume)
			if err != nil {
				t.Fatal(err)
			}
			tc.after(k)
			last := l.page.Seq()
			l.park()
			if err := os.WriteFile(c.volume, old, 0o600); err != nil {
				t.Fatal(err)
			}
			for _, known := range []uint64{0, last} {
				k := newClient(t)
				l := c.open(k, func(s *wire.Setup) { s.MinSeq = known })
				k.ask(&abi.Submission{Op: abi.OpIdentify, Payload: hello})
				id := [abi.RunIDSize]byte{1}
				done := k.ask(&abi.Submission{Op: abi.OpPowerOn, Payload: id[:]})
				switch resumes := tc.resumes && known == 0; {
				case resumes != (done.Status == abi.StatusOK), !resumes && done.Status != abi.StatusFailed:
					t.Errorf("with number %d known: power-on: %v", known, done.Status)
				case resumes:
					k.seq = last
					if got := k.tpm.PCR(10); got != want {
						t.Errorf("PCR 10 = %x, want %x", got, want)
					}
				}
				l.end()
			}
		})
	}
}
