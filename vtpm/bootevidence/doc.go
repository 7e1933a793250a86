// SPDX-License-Identifier: Apache-2.0

// Package bootevidence is what a virtual machine with measuring firmware of its own
// can show of its host's boot: PCR 0-7 of the host's hardware TPM and a quote of
// them, in an NV index of the machine's TPM (abi.BootEvidenceIndex), which any TPM
// tool reads:
//
//	tpm2_nvread 0x1200000
//
// The host's daemon makes it for one run of one machine ([New]), the machine's device
// hands it to the card as bytes, and the card writes it right after the guest's
// TPM2_Startup. Whoever reads it checks it with the host's attestation key
// ([Evidence.Verify]), whose certificate it names.
//
// # What it proves
//
// That the host with this key had these PCRs when a run of this machine began on it.
// It is as fresh as that, and may be shown again and by others: a verifier that has a
// nonce wants evidence from the host's daemon instead (package attest). The host's
// event log is not in it, for want of room.
package bootevidence
