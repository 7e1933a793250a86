// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/rand"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/coproc"
	"hwvtpm/coproc/coproctest/tpmtest"
	"hwvtpm/coproc/pcie"
)

// renew clears the slot's TPM.
func renew(t *testing.T, c *pcie.Card) error {
	s, err := c.OpenSlot(t.Context(), pcie.SlotName)
	if err != nil {
		return err
	}
	defer s.Close()
	var run coproc.RunID // that no other test had
	rand.Read(run[:])
	if _, err := s.PowerOn(t.Context(), run); err != nil {
		return err
	}
	tpm := tpmtest.New(t, func(cmd []byte) ([]byte, error) {
		resp := make([]byte, coproc.MaxTransfer)
		n, err := s.Execute(t.Context(), coproc.Command{Bytes: cmd}, resp)
		return resp[:n], err
	})
	tpm.Startup()
	_, err = tpm2.Clear{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHLockout, Auth: tpm2.PasswordAuth(nil)}}.Execute(tpm)
	return err
}
