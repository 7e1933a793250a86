// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"encoding/json"
	"fmt"
)

// Version is that of the format of evidence and of policies.
const Version = 1

// Limits of evidence, in bytes.
const (
	MaxEvidence = 16 << 20
	MaxLog      = 4 << 20  // of one event log; those of real machines have 20 to 100 KiB
	MaxChain    = 64 << 10 // of one chain, PEM
	maxStruct   = 2 << 10  // of one structure of a TPM
	maxSigned   = 2400     // of one statement: abi.MaxStatementBody and what is around it
)

// Mode says what PCR 0-7 of the vTPM are.
type Mode string

// The modes.
const (
	ModeMap      Mode = "map"      // the host's PCR 0-7, and the guest can't change them
	ModeEvidence Mode = "evidence" // the guest firmware's; the host's are beside them
	ModeOff      Mode = "off"      // the guest firmware's; nothing is said of the host's
)

// Quote is what TPM2_Quote gives, as it gives it (TCG Part 3, "TPM2_Quote"): the
// content of the TPM2B_ATTEST, and the TPMT_SIGNATURE.
type Quote struct {
	Attest    Bytes `json:"attest"`
	Signature Bytes `json:"signature"`
}

// Layer is one system, by a quote of its TPM: the machine or its host.
type Layer struct {
	Quote Quote `json:"quote"`
	PCRs  PCRs  `json:"pcrs"` // values of exactly what the quote selects
	// Log is the TCG event log of the firmware, binary as the firmware made it, or
	// empty. It is what /sys/kernel/security/tpm0/binary_bios_measurements has.
	Log Bytes `json:"log,omitempty"`
}

// Machine is the virtual machine's layer.
type Machine struct {
	// Chain is the certificate of the AIK that signed, then its issuers, PEM.
	Chain string `json:"chain"`
	Layer
}

// Binding ties the vTPM to its coprocessor, and that to its host's TPM.
type Binding struct {
	// Chain is the vTPM's EK certificate and then its issuers, PEM: coprocessor AIK,
	// host AIK, attestation authority. The root may be left out.
	Chain string `json:"chain"`
	// EKPublic is the TPMT_PUBLIC of the endorsement key.
	EKPublic Bytes `json:"ek-public"`
	// Statement is the card's signed statement of the slot's endorsement keys:
	// abi.StatementEK.
	Statement Bytes `json:"statement"`
	// CardQuote is by the host AIK, over any PCRs, and its qualifying data is
	// CardData of the coprocessor's public key.
	CardQuote Quote `json:"card-quote"`
	// Health is a signed statement of the card about itself, with HostNonce for its
	// nonce: abi.StatementHealth. It may be empty.
	Health Bytes `json:"health,omitempty"`
}

// Evidence is one machine's answer to one nonce.
type Evidence struct {
	Version int     `json:"version"`
	PCRMap  Mode    `json:"pcr-map"`
	VM      Machine `json:"vm"`
	Binding Binding `json:"binding"`
	// Host is the host's layer, by the host AIK of the binding's chain. Its quote's
	// qualifying data is HostNonce. With ModeOff there need be none.
	Host *Layer `json:"host,omitempty"`
}

// Parse reads evidence and checks its form and its bounds: nothing of it is
// believed. Errors are ErrFormat.
func Parse(text []byte) (*Evidence, error) {
	if len(text) > MaxEvidence {
		return nil, fmt.Errorf("%w: %d bytes of evidence, more than %d", ErrFormat, len(text), MaxEvidence)
	}
	e := &Evidence{}
	if err := decode(text, e); err != nil {
		return nil, err
	}
	if err := e.check(); err != nil {
		return nil, err
	}
	return e, nil
}

func (e *Evidence) log(path string) *Bytes {
	switch {
	case path == "vm.log":
		return &e.VM.Log
	case path == "host.log" && e.Host != nil:
		return &e.Host.Log
	}
	return nil
}

// ParseMachine reads the machine's layer alone, as a guest hands it to its host: the
// member vm of evidence. It is as strict as Parse.
func ParseMachine(text []byte) (*Machine, error) {
	if len(text) > MaxEvidence {
		return nil, fmt.Errorf("%w: %d bytes of a machine's layer, more than %d", ErrFormat, len(text), MaxEvidence)
	}
	m := &Machine{}
	if err := decode(text, m); err != nil {
		return nil, err
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Machine) log(path string) *Bytes {
	if path != "log" {
		return nil
	}
	return &m.Log
}

// Marshal writes evidence, indented.
func (e *Evidence) Marshal() ([]byte, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("attest: %w", err)
	}
	return append(text, '\n'), nil
}

func (e *Evidence) check() error {
	if e.Version != Version {
		return fmt.Errorf("%w: evidence of version %d, not %d", ErrFormat, e.Version, Version)
	}
	switch e.PCRMap {
	case ModeMap, ModeEvidence, ModeOff:
	default:
		return fmt.Errorf("%w: pcr-map is %.20q, not map, evidence or off", ErrFormat, e.PCRMap)
	}
	if err := e.VM.check(); err != nil {
		return err
	}
	if e.Host != nil {
		if err := e.Host.check("host"); err != nil {
			return err
		}
	}
	for _, part := range []struct {
		name  string
		size  int
		least int
		most  int
	}{
		{"binding chain", len(e.Binding.Chain), 1, MaxChain},
		{"ek-public", len(e.Binding.EKPublic), 1, maxStruct},
		{"statement", len(e.Binding.Statement), 1, maxSigned},
		{"health", len(e.Binding.Health), 0, maxSigned},
	} {
		if err := bounded(part.name, part.size, part.least, part.most); err != nil {
			return err
		}
	}
	return e.Binding.CardQuote.check("card-quote")
}

func bounded(name string, size, least, most int) error {
	if size < least || size > most {
		return fmt.Errorf("%w: %s has %d bytes, not %d to %d", ErrFormat, name, size, least, most)
	}
	return nil
}

func (q *Quote) check(name string) error {
	if err := bounded(name+" attest", len(q.Attest), 1, maxStruct); err != nil {
		return err
	}
	return bounded(name+" signature", len(q.Signature), 1, maxStruct)
}

func (m *Machine) check() error {
	if err := m.Layer.check("vm"); err != nil {
		return err
	}
	return bounded("vm chain", len(m.Chain), 1, MaxChain)
}

func (l *Layer) check(name string) error {
	if err := l.Quote.check(name); err != nil {
		return err
	}
	if err := bounded(name+" log", len(l.Log), 0, MaxLog); err != nil {
		return err
	}
	if err := l.PCRs.check(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
