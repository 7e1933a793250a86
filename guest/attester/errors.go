// SPDX-License-Identifier: Apache-2.0

package attester

import "errors"

var (
	// ErrNotEnrolled is returned where a certified attestation key is needed, and
	// there is none in the folder.
	ErrNotEnrolled = errors.New("attester: not enrolled")
	// ErrAnswer is returned for what an authority or a host answers, and is not
	// fit to be an answer.
	ErrAnswer = errors.New("attester: unfit answer")
	// ErrSelection is returned for PCRs or banks that there are not.
	ErrSelection = errors.New("attester: PCR selection")
)
