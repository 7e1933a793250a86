// SPDX-License-Identifier: Apache-2.0

// Package enrol certifies attestation keys, and only those that are proven to
// live in the TPM whose endorsement key was shown.
//
//	Begin   EK certificate, chain, AK's public area     -> credential, for this EK and AK only
//	        TPM2_ActivateCredential in that TPM         -> the secret in it
//	Finish  the secret                                  -> the AK's certificate
//
// The proof is TCG "TPM 2.0 Part 1", Credential Protection: a TPM opens the
// credential only if the EK's private key and an object with the AK's Name are
// both in it. The Name is a hash over the AK's attributes, so that restricted,
// fixedTPM, fixedParent and sensitiveDataOrigin are proven with it.
//
// A host's EK certificate comes from its TPM's manufacturer: see Manufacturers. A
// vTPM's must come from our own root, through the AIKs of its host and card.
//
// Who may enrol is judged twice, when a challenge is made and when it is met. A
// challenge is good for one try, and for a few minutes.
package enrol
