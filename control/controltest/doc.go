// SPDX-License-Identifier: Apache-2.0

// Package controltest has real TPMs for the tests of control: libtpms in a
// simulated card, and swtpm as swtpm_setup makes it, with the certificates of a
// manufacturer; and what the TPM's side of an enrolment does.
package controltest
