// SPDX-License-Identifier: Apache-2.0

// Package workload is what is measured when a TPM's speed is: a set of commands,
// the keys that some of them use, and the loop that repeats a command. The
// benchmark on the host and the agent in a guest share it, so that their figures
// are of the same bytes.
//
// # Scripts
//
// [New] lets go-tpm build a command and the TPM execute it once, and keeps the
// bytes as a [Script]. From then on only bytes are sent: neither go-tpm nor the
// making of keys is part of a measurement. A script also runs on TPMs that it was
// not made on, since a TPM without transient objects gives out handles from the
// first one up:
//
//	Prepare -> Command, Command, ... -> Cleanup
//
// New leaves the TPM behind Prepare: [Measure] may follow, and Cleanup has to.
//
// # Keys
//
// They are primaries of the null hierarchy, whose seed is random for each start
// of a TPM: nothing of them stays. They are unrestricted signing keys with a
// fixed scheme and without authorisation. An unrestricted key may quote, too.
package workload
