// SPDX-License-Identifier: Apache-2.0

// Package attester is a guest's side of attestation: it has an attestation key (AIK)
// in the guest's TPM certified, and answers verifiers with it.
//
// # Keys
//
// The endorsement key (EK) is the vTPM's identity, and its certificate, which the
// card made, is in NV. The AIK is restricted, so that it signs only what the TPM
// made. Package vtpm/aik keeps it, for guests as for hosts: its blobs are in a folder,
// with its certificate beside them. Without this TPM they are of no use, so who can
// read them learns nothing, and who destroys them costs one enrolment. Nothing stays
// loaded in the TPM, nothing is made persistent, and no NV is written.
//
// # Answers
//
// A quote and the values of PCRs are different commands, between which the machine
// may extend a PCR. Machine gives the values that are quoted, exactly, and asks the
// TPM again until it has them.
//
// An Attester may be used from any goroutine.
package attester
