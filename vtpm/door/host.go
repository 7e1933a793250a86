// SPDX-License-Identifier: Apache-2.0

package door

import "time"

// Operations of backends: processes of the host that run a machine's device.
const (
	OpPCRs         = "pcrs"          // no body -> PCRs
	OpBootEvidence = "boot-evidence" // BootEvidenceRequest -> BootEvidence
)

// Operations of operators.
const (
	OpStatus = "status" // no body -> Status
	OpVMs    = "vms"    // no body -> []string
	OpVM     = "vm"     // VMRequest -> VM
)

// PCRs are values of the host's PCR 0-7 that can be mapped into a vTPM.
type PCRs struct {
	Banks map[string][]string `json:"banks"` // by name, as "sha256": eight values, hexadecimal
}

// Status is how the host's daemon and what it depends on are.
type Status struct {
	Version  int           `json:"version"`
	Host     string        `json:"host"`
	AIK      Certification `json:"aik"`                // the host's
	CardAIK  Certification `json:"card-aik"`           // the coprocessor's
	Card     string        `json:"card"`               // serial, hexadecimal
	VMs      int           `json:"vms"`                // slots of the card
	Problems []string      `json:"problems,omitempty"` // each one line, for people
}

// Certification is a key's certificate, for people.
type Certification struct {
	Key    string    `json:"key,omitempty"` // SHA-256 of the SubjectPublicKeyInfo, hexadecimal
	Serial string    `json:"serial,omitempty"`
	Ends   time.Time `json:"ends,omitzero"`
}

// VMRequest names a machine.
type VMRequest struct {
	Name string `json:"name"`
}

// VM is what the host knows of a machine's vTPM.
type VM struct {
	Name      string `json:"name"`
	Open      bool   `json:"open"` // a backend has the slot
	EKs       []EK   `json:"eks"`
	Statement []byte `json:"statement,omitempty"` // the card's, of the slot's EKs
	AIK       string `json:"aik,omitempty"`       // PEM: the certificate that was seen last, and its chain
}
