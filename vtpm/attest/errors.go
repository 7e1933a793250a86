// SPDX-License-Identifier: Apache-2.0

package attest

import "errors"

var (
	// ErrFormat is returned for evidence or a policy that is not of the
	// documented form.
	ErrFormat = errors.New("attest: malformed")
	// ErrNonce is returned for a nonce that is too short or too long.
	ErrNonce = errors.New("attest: a nonce has 16 to 64 bytes")
	// ErrNotHeld is returned by Learn and CheckMachine for evidence that does not
	// hold: nobody learns from that, or answers it.
	ErrNotHeld = errors.New("attest: the evidence does not hold")
)
