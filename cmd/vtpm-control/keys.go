// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"hwvtpm/control/ca"
)

// tokenConfig says in which PKCS#11 token the keys are: pkcs11.json in the home.
type tokenConfig struct {
	Module  string `json:"module"`   // path of the library
	Token   string `json:"token"`    // label
	PINFile string `json:"pin-file"` // the user's PIN, 0600
}

// openKeys opens the place of a home's private keys. close is never nil.
func (h home) openKeys() (_ ca.Keys, close func() error, err error) {
	nothing := func() error { return nil }
	text, err := os.ReadFile(h.path("pkcs11.json"))
	if errors.Is(err, os.ErrNotExist) {
		return ca.FileKeys{Dir: h.path("keys")}, nothing, nil
	}
	var cfg tokenConfig
	if err == nil {
		err = json.Unmarshal(text, &cfg)
	}
	if err != nil {
		return nil, nothing, fmt.Errorf("pkcs11.json: %w", err)
	}
	keys, close, err := openToken(cfg)
	if err != nil {
		return nil, nothing, err
	}
	return keys, close, nil
}

// writeTokenConfig makes a home one with its keys in a token.
func (h home) writeTokenConfig(cfg tokenConfig) error {
	text, err := json.MarshalIndent(cfg, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(h.path("pkcs11.json"), append(text, '\n'), 0o600)
}
