// SPDX-License-Identifier: Apache-2.0

// Package bootevidencetest is a host for tests of evidence of a boot: one whose TPM
// is a key, and whose PCRs are made up.
package bootevidencetest
