// SPDX-License-Identifier: Apache-2.0

package enrol

import "errors"

var (
	// ErrRequest is returned for a request that nobody could be granted: a
	// malformed or unfit key, an EK certificate of an unknown issuer.
	ErrRequest = errors.New("enrol: request refused")
	// ErrDenied is returned to who may not enrol this TPM under this name.
	ErrDenied = errors.New("enrol: not allowed")
	// ErrProof is returned for a secret that is wrong, late or for no challenge.
	ErrProof = errors.New("enrol: no proof that the key is in the TPM")
	// ErrBusy is returned when too many challenges wait to be met.
	ErrBusy = errors.New("enrol: too many enrolments are under way")
)
