// SPDX-License-Identifier: Apache-2.0

// Package attest has the evidence by which a machine proves what it is and where
// it runs, and the verifier of it.
//
// One answer to one nonce proves a chain: this machine booted this, in this vTPM,
// which lives in this coprocessor, which is bound to this host's TPM, whose host
// booted that.
//
//	root ── attestation ─┬─ vTPM AIK ───────── quote of the vTPM's PCRs, the nonce
//	                     │    └ names the EK    │
//	                     └─ host AIK ────────── quote of the host's PCRs, a nonce
//	                          │                 made from the nonce and that quote
//	                          ├──────────────── quote over the coprocessor's key
//	                          └─ coprocessor AIK ── statement: the slot's EKs
//	                               └─ vTPM EK
//
// Parse reads evidence, and Verifier judges it: a list of claims, each held, failed
// or not claimed, with a reason for people. A claim that cannot be judged, because
// what it hangs on failed, is not claimed. Whoever relies on evidence asks
// Result.OK, which is true only if all that was required held.
//
// Nothing in evidence is trusted because it is there: what no key of the chain
// signed decides nothing. A Verifier may be used from any goroutine.
// docs/attestation.md has the format, and how to check it with stock tools.
package attest
