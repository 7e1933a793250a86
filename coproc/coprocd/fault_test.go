// SPDX-License-Identifier: Apache-2.0

package coprocd

import (
	"bytes"
	"sync/atomic"
	"testing"

	"hwvtpm/coproc"
)

// TestEndsOfTheDaemonAreNoFault: a command that is under way whenever the daemon is
// killed is executed all the same, and once.
func TestEndsOfTheDaemonAreNoFault(t *testing.T) {
	const ends = 5
	r := newRig(t, nil)
	s := r.start(t)
	var met atomic.Int32
	r.slot.Survives(func() bool {
		if met.Add(1) > ends {
			return true
		}
		r.Stop()
		r.Listen()
		return false
	})
	if got := execute(t, s); got != 1 || met.Load() != ends+1 {
		t.Errorf("the command is number %d of the TPM, after %d workers", got, met.Load())
	}
}

// TestDeadlyCommand: a command that kills each worker of a daemon that lives is
// refused after the second, and the next command is executed.
func TestDeadlyCommand(t *testing.T) {
	r := newRig(t, nil)
	s := r.start(t)
	var met atomic.Int32
	r.slot.Survives(func() bool { met.Add(1); return false })
	resp := make([]byte, coproc.MaxTransfer)
	n, err := s.Execute(t.Context(), coproc.Command{Bytes: testCommand}, resp)
	if want := []byte{0x80, 0x01, 0, 0, 0, 10, 0, 0, 0x01, 0x01}; err != nil || !bytes.Equal(resp[:n], want) || met.Load() != 2 {
		t.Errorf("Execute = %x, %v after %d workers, want TPM_RC_FAILURE after 2", resp[:n], err, met.Load())
	}
	r.slot.Survives(nil)
	if got := execute(t, s); got != 1 {
		t.Errorf("the next command is number %d of the TPM", got)
	}
}
