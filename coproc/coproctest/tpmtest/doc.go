// SPDX-License-Identifier: Apache-2.0

// Package tpmtest speaks TPM 2.0 to anything that takes raw commands, for
// tests. Its methods fail the test on any error, so that a test reads as the
// list of what a guest does. It marshals with google/go-tpm, which no program
// of this project does on its data path.
package tpmtest
