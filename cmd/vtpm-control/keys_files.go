// SPDX-License-Identifier: Apache-2.0

//go:build !cgo || !pkcs11

package main

import (
	"errors"

	"hwvtpm/control/ca"
)

func openToken(tokenConfig) (ca.Keys, func() error, error) {
	return nil, nil, errors.New("the keys are in a PKCS#11 token, and this program was built without: build it with CGO_ENABLED=1 and -tags pkcs11")
}
