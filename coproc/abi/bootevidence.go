// SPDX-License-Identifier: Apache-2.0

package abi

import "fmt"

// OpBootEvidence gives the TPM evidence of its host's boot, for the run that it is
// powered on for. Payload: 1 to MaxBootEvidence bytes, of which the card does not
// know the meaning -> no payload, or text if the status is not OK.
//
// It comes when OpMapPCRs may come, with StatusOrder if that is too late. The next
// successful TPM2_Startup(CLEAR) of the guest puts the evidence into the NV index
// BootEvidenceIndex, with zeros up to its size. It is kept as long as the run,
// through resets and other workers, or until other evidence comes.
const OpBootEvidence Opcode = 0x11

// BootEvidenceIndex is the NV index with the evidence. The TCG's "Registry of
// Reserved TPM 2.0 Handles and Localities" leaves 0x01000000 to 0x013fffff to the
// TPM's manufacturer, which the card is, to use as it likes.
//
// The index is made by the platform (TPMA_NV_PLATFORMCREATE). Who has the authority
// of the owner, of the platform or of the index, which is empty, may read it. The
// platform writes it, and only once between two resets (TPMA_NV_WRITE_STCLEAR, and it
// is locked).
const BootEvidenceIndex = 0x01200000

// MaxBootEvidence is the size of the evidence and of its NV index, in bytes. It is the
// largest index that libtpms knows.
const MaxBootEvidence = 2048

// CheckBootEvidence tells whether b can be the payload of OpBootEvidence.
func CheckBootEvidence(b []byte) error {
	if len(b) == 0 || len(b) > MaxBootEvidence {
		return fmt.Errorf("boot evidence of %d bytes: %w", len(b), ErrMalformed)
	}
	return nil
}
