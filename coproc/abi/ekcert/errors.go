// SPDX-License-Identifier: Apache-2.0

package ekcert

import "errors"

var (
	// ErrProfile is returned for a certificate that is not of the profile that
	// its place in a chain asks for.
	ErrProfile = errors.New("certificate is not of the expected profile")
	// ErrName is returned for a name that can't be put into a certificate.
	ErrName = errors.New("name is not letters, digits, dots, dashes and underscores, 1 to 63, starting with a letter or digit")
)
