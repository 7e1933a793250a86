// SPDX-License-Identifier: Apache-2.0

// Package provision gives a new TPM what a buyer expects in it: the PCR banks
// that were asked for, endorsement keys and a storage root key at their usual
// persistent handles, and certificates of the endorsement keys. It is what swtpm_setup does for a file of swtpm.
//
// It drives the TPM by plain commands, one after the other, and saves nothing:
// the caller writes the permanent state once all of it is in order, so that a
// TPM is provisioned whole or not at all. Any response other than success is
// an error that names the command, and leaves a TPM that is to be thrown away.
//
// Templates and handles are those of the "TCG EK Credential Profile for TPM
// Family 2.0", annex B, and of the "TCG TPM v2.0 Provisioning Guidance".
// Whoever signs certificates is told the public keys, and gives what is to be
// written.
package provision
