// SPDX-License-Identifier: Apache-2.0

// Package ca issues the certificates of attestation: a root, two intermediates,
// and below them what each link of the chain needs.
//
//	root                                    path length 3
//	├─ service                              TLS of the server and of hosts
//	└─ attestation                          path length 2
//	   ├─ vTPM AIK                          SAN urn:hwvtpm:vm:ID
//	   └─ host AIK (in the host's TPM)      SAN urn:hwvtpm:host:NAME, path length 1
//	      └─ coprocessor AIK (in the card)  SAN urn:hwvtpm:coprocessor:SERIAL, path length 0
//	         └─ vTPM EK (in the vTPM)       EK credential profile, SAN with the machine
//
// The authority's keys issue the first two levels. The others are signed by TPM
// keys elsewhere, from the templates that this package builds, so that there is
// one implementation of each profile and one of its check.
//
// Private keys are crypto.Signers, from files or from a PKCS#11 token: see Keys.
// All functions may be called from any goroutine.
package ca
