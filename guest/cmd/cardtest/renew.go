// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ed25519"
	"errors"
	"sync"
	"testing"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/admin"
	"hwvtpm/coproc/coproctest"
	"hwvtpm/coproc/pcie"
)

// access is the access key of the tests' slot, made for this run.
var access = sync.OnceValues(func() (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(nil)
	return key, err
})

func accessKey(string) (ed25519.PrivateKey, error) { return access() }

// renew makes the tests' slot anew, with a new TPM in it.
func renew(t *testing.T, c *pcie.Card) error {
	client := admin.New(c)
	old, err := client.Show(t.Context(), coproctest.SlotName)
	if err == nil {
		_, _, err = client.Destroy(t.Context(), old)
	} else if errors.Is(err, coproc.ErrNotFound) {
		err = nil
	}
	if err != nil {
		return err
	}
	key, err := access()
	if err != nil {
		return err
	}
	_, err = client.Create(t.Context(), abi.SlotCreate{
		Keys: abi.KeyP256EK, Banks: abi.DefaultBanks, Name: coproctest.SlotName,
		AccessKey: [32]byte(key.Public().(ed25519.PublicKey)),
	})
	return err
}
