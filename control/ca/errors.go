// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"errors"

	"hwvtpm/coproc/abi/ekcert"
)

var (
	// ErrProfile is returned for a certificate that is not of the profile that
	// its place in a chain asks for.
	ErrProfile = ekcert.ErrProfile
	// ErrName is returned for a name that can't be put into a certificate.
	ErrName = ekcert.ErrName
	// ErrNoRootKey is returned where only the root's key would do, and it is not
	// there: many keep it elsewhere.
	ErrNoRootKey = errors.New("ca: the root's private key is not here")
	// ErrExists is returned by Create for a folder that has an authority.
	ErrExists = errors.New("ca: there is an authority already")
)
