// SPDX-License-Identifier: Apache-2.0

package ca

import "hwvtpm/coproc/abi/ekcert"

// Kind is what the subject of a certificate is.
type Kind = ekcert.Kind

// The subjects of the certificates of the chain, as their URNs say them.
const (
	KindHost        = ekcert.KindHost
	KindVM          = ekcert.KindVM
	KindCoprocessor = ekcert.KindCoprocessor
)

// ValidName says whether a name can stand for a host, machine or card: the rule
// is that of slot names.
func ValidName(name string) bool { return ekcert.ValidName(name) }
