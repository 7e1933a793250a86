// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"os"
	"path/filepath"
	"testing"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/coproctest/tpmtest"
	"hwvtpm/firmware/sealed"
)

// crashHost is the end of the host's power: the volatile file on disk is whole,
// but as it was some time ago, and the host boots anew.
func (r *rig) crashHost(old []byte) {
	r.t.Helper()
	r.shut()
	// Another boot's id: whoever wrote the file had another one than we have.
	copy(old, appendVolatileHeader(nil, sealed.SlotID(old[16:32]), [16]byte{1}))
	if err := os.WriteFile(filepath.Join(r.dir, volatileName), old, 0o600); err != nil {
		r.t.Fatal(err)
	}
	r.open()
}

// TestHostCrash: what the disk holds of a run after the host's crash may be
// older than what was answered, and must not be taken for the end of the run.
func TestHostCrash(t *testing.T) {
	for name, run := range map[string][abi.RunIDSize]byte{"same run": {1}, "next run": {2}} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.powerOn([abi.RunIDSize]byte{1})
			r.tpm.Startup()
			r.tpm.DefineCounter(tpmtest.NVBase, true)
			count(r.tpm, tpmtest.NVBase, 1)
			r.tpm.Extend(10, "one")
			old, err := os.ReadFile(filepath.Join(r.dir, volatileName))
			if err != nil {
				t.Fatal(err)
			}
			count(r.tpm, tpmtest.NVBase, 3)
			r.tpm.Extend(10, "two")
			last := counter(r.tpm, tpmtest.NVBase)

			r.crashHost(old)
			if reply := r.powerOn(run); reply.Resumed {
				t.Fatalf("power-on after a crash of the host = %+v, want a fresh start", reply)
			}
			r.tpm.Startup()
			count(r.tpm, tpmtest.NVBase, 1)
			if got := counter(r.tpm, tpmtest.NVBase); got <= last {
				t.Errorf("orderly counter after a crash of the host = %d, want more than %d", got, last)
			}
		})
	}
}
