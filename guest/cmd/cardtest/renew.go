// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/accesskey"
	"hwvtpm/coproc/admin"
	"hwvtpm/coproc/coproctest"
	"hwvtpm/coproc/pcie"
)

// keyFile is the file of the access key of the tests' slot, made for this run.
var keyFile = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "cardtest")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "slot.key")
	_, err = accesskey.Create(file)
	return file, err
})

func accessKey(string) (ed25519.PrivateKey, error) {
	file, err := keyFile()
	if err != nil {
		return nil, err
	}
	return accesskey.Load(file)
}

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
	key, err := accessKey(coproctest.SlotName)
	if err != nil {
		return err
	}
	_, err = client.Create(t.Context(), abi.SlotCreate{
		Keys: abi.KeyP256EK, Banks: abi.DefaultBanks, Name: coproctest.SlotName,
		AccessKey: [32]byte(key.Public().(ed25519.PublicKey)),
	})
	return err
}
