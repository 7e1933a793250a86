// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"os"
	"testing"

	"hwvtpm/coproc/abi"
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
