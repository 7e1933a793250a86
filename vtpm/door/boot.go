// SPDX-License-Identifier: Apache-2.0

package door

// BootEvidenceRequest asks for evidence of the host's boot for one run of a
// machine. It is the body of OpBootEvidence, which gives BootEvidence.
type BootEvidenceRequest struct {
	Slot string `json:"slot"`
	Run  []byte `json:"run"` // 32 bytes
}

// BootEvidence is what the machine's TPM is to show: see package bootevidence.
type BootEvidence struct {
	Evidence []byte `json:"evidence"`
}
