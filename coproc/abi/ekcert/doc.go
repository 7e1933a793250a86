// SPDX-License-Identifier: Apache-2.0

// Package ekcert has the profiles of the certificates that a card and its host
// meet at: the card's own, which the host's TPM signs, and those of endorsement
// keys in vTPMs, which the card signs.
//
//	coprocessor AIK   SAN urn:hwvtpm:coprocessor:SERIAL, path length 0
//	└─ vTPM EK        EK credential profile, SAN with urn:hwvtpm:vm:NAME
//
// Each profile has one function that builds a template and one that checks a
// certificate; package control/ca has the rest of the chain. It needs nothing but
// the standard library, so that a card's firmware can use it.
package ekcert
