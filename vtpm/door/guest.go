// SPDX-License-Identifier: Apache-2.0

package door

import "encoding/json"

// Version is that of the operations and their types.
const Version = 1

// Operations of guests.
const (
	OpHello    = "hello"    // no body -> Hello
	OpEK       = "ek"       // no body -> []EK
	OpEnrol    = "enrol"    // EnrolRequest -> Challenge
	OpProve    = "prove"    // Proof -> Certified
	OpEvidence = "evidence" // EvidenceRequest -> attest.Evidence
)

// Hello is who answers, and whom the channel is for.
type Hello struct {
	Version int    `json:"version"`
	VM      string `json:"vm,omitempty"` // empty if the channel names none
}

// EK is an endorsement key of a machine's vTPM, as its card certified it.
type EK struct {
	Handle      uint32   `json:"handle"`      // persistent, 0x81010001 and so on
	Certificate []byte   `json:"certificate"` // DER
	Chain       [][]byte `json:"chain"`       // DER: coprocessor AIK, host AIK, attestation authority
}

// EnrolRequest asks for a certificate of an attestation key. Members are those of
// the control server's POST /v1/enrol (docs/control.md); the kind is a vTPM.
type EnrolRequest struct {
	Name          string   `json:"name"`            // of the machine
	EKCertificate []byte   `json:"ek-certificate"`  // as NV has it
	EKChain       [][]byte `json:"ek-chain"`        // DER, any order, without the root
	AKPublic      []byte   `json:"ak-public"`       // TPM2B_PUBLIC
	Token         string   `json:"token,omitempty"` // the control server's, if it takes one
}

// Challenge is a secret that only the TPM with that EK and AK can open.
type Challenge struct {
	ID     string `json:"id"`     // of the enrolment
	Blob   []byte `json:"blob"`   // TPM2B_ID_OBJECT
	Secret []byte `json:"secret"` // TPM2B_ENCRYPTED_SECRET
}

// Proof is the opened secret.
type Proof struct {
	ID     string `json:"id"`
	Secret []byte `json:"secret"`
}

// Certified is the attestation key's certificate, and what is above it, as PEM.
type Certified struct {
	Certificate string `json:"certificate"`
	Chain       string `json:"chain"`
}

// EvidenceRequest is a machine's part of the evidence for one nonce.
type EvidenceRequest struct {
	Nonce  []byte          `json:"nonce"`             // the verifier's
	PCRMap string          `json:"pcr-map,omitempty"` // attest.Mode; empty: as it is
	VM     json.RawMessage `json:"vm"`                // attest.Machine
}
