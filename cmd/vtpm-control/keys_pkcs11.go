// SPDX-License-Identifier: Apache-2.0

//go:build cgo && pkcs11

package main

import (
	"bytes"
	"fmt"
	"os"

	"hwvtpm/control/ca"
	"hwvtpm/control/ca/hsm"
)

func openToken(cfg tokenConfig) (ca.Keys, func() error, error) {
	info, err := os.Stat(cfg.PINFile)
	if err != nil {
		return nil, nil, fmt.Errorf("PIN: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, nil, fmt.Errorf("PIN: others may read or write %s: make it 0600, and change the PIN", cfg.PINFile)
	}
	pin, err := os.ReadFile(cfg.PINFile)
	if err != nil {
		return nil, nil, fmt.Errorf("PIN: %w", err)
	}
	defer clear(pin)
	t, err := hsm.Open(cfg.Module, cfg.Token, bytes.TrimRight(pin, "\r\n"))
	if err != nil {
		return nil, nil, err
	}
	return t, t.Close, nil
}
