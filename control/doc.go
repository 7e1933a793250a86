// SPDX-License-Identifier: Apache-2.0

// Package control is the cloud's side of hwvtpm: the authority that certifies
// attestation keys. It has no code of its own; its rooms are
//
//	ca      root and intermediates, certificate profiles, revocation lists
//	store   what is known: hosts, machines, certificates, tokens, challenges
//	audit   what was done: lines chained by their hashes
//	enrol   proof that an attestation key lives in the TPM of an EK certificate
//	api     HTTPS for hosts and guests, and a UNIX socket for operators
//
// Nothing here holds a TPM's secret, and nothing trusts a word of its callers:
// docs/control.md says who may ask for what.
package control
