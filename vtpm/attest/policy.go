// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"encoding/json"
	"fmt"

	"hwvtpm/coproc/abi"
)

// MaxPolicy is the size of the largest policy in bytes.
const MaxPolicy = 4 << 20

// Policy says what a verifier accepts beside a whole chain. The zero value accepts
// whatever machine in mode map, which is why a verifier should have one.
type Policy struct {
	Version int `json:"version"`
	// Modes that are accepted; none is map alone. With off the evidence may be
	// without its host's layer.
	Modes []Mode `json:"modes,omitempty"`
	// Machines, Hosts and Cards (serials) that are accepted; none is any.
	Machines []string `json:"machines,omitempty"`
	Hosts    []string `json:"hosts,omitempty"`
	Cards    []string `json:"cards,omitempty"`
	// Revocation asks for current revocation lists of all authorities.
	Revocation bool `json:"revocation,omitempty"`
	// SameBoot asks that the host's TPM bound the card in the host's present boot.
	SameBoot bool `json:"same-boot,omitempty"`

	VM   LayerPolicy `json:"vm,omitzero"`
	Host LayerPolicy `json:"host,omitzero"`
	Card CardPolicy  `json:"card,omitzero"`
}

// LayerPolicy is what one layer must show.
type LayerPolicy struct {
	// Quoted lists PCRs that one strong bank must have beside 0-7.
	Quoted []int `json:"quoted,omitempty"`
	// PCRs has allowed values, by bank and PCR. In each bank that the evidence
	// quotes, each PCR that stands here must have one of its values; at least one
	// bank of the policy that is stronger than SHA-1 must be quoted.
	PCRs map[string]map[string][]Hex `json:"pcrs,omitempty"`
	// Events has allowed digests of events, by bank and PCR of 0-7: all that the log
	// says was measured into that PCR must be among them, and if any are allowed,
	// there must be one. In a bank that is quoted each PCR that stands here must be.
	Events map[string]map[string][]Hex `json:"events,omitempty"`
	// BootAggregates are allowed values of SHA-256 over PCR 0-9 of the SHA-256 bank:
	// the boot_aggregate of Linux' IMA.
	BootAggregates []Hex `json:"boot-aggregates,omitempty"`
	// Log asks for an event log that leads to the quoted values.
	Log bool `json:"log,omitempty"`
	// SecureBoot asks for a log that shows that UEFI Secure Boot was on, in each bank
	// stronger than SHA-1 that it leads to.
	SecureBoot bool `json:"secure-boot,omitempty"`
}

// CardPolicy is what the card must say of itself. All of it needs a fresh statement.
type CardPolicy struct {
	// Firmware are allowed measurements of the card's programs.
	Firmware []Hex `json:"firmware,omitempty"`
	// HardwareKey asks that the storage key is kept by the host's TPM, and
	// HardwareCounter that a counter of the TPM finds states that were set back.
	HardwareKey     bool `json:"hardware-key,omitempty"`
	HardwareCounter bool `json:"hardware-counter,omitempty"`
}

// ParsePolicy reads a policy, as strictly as evidence.
func ParsePolicy(text []byte) (*Policy, error) {
	if len(text) > MaxPolicy {
		return nil, fmt.Errorf("%w: a policy of %d bytes, more than %d", ErrFormat, len(text), MaxPolicy)
	}
	p := &Policy{}
	if err := decode(text, p); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	return p, nil
}

// Marshal writes a policy, indented.
func (p *Policy) Marshal() ([]byte, error) {
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("attest: policy: %w", err)
	}
	return append(text, '\n'), nil
}

func (p *Policy) check() error {
	if p.Version != Version {
		return fmt.Errorf("%w: version %d, not %d", ErrFormat, p.Version, Version)
	}
	if vacant(p.Modes) || vacant(p.Machines) || vacant(p.Hosts) || vacant(p.Cards) || vacant(p.Card.Firmware) {
		return errEmpty
	}
	for _, m := range p.Modes {
		if m != ModeMap && m != ModeEvidence && m != ModeOff {
			return fmt.Errorf("%w: no mode is called %.20q", ErrFormat, m)
		}
	}
	for _, l := range []*LayerPolicy{&p.VM, &p.Host} {
		if err := l.check(); err != nil {
			return err
		}
	}
	for _, m := range p.Card.Firmware {
		if len(m) != len(abi.CardHealth{}.Firmware) {
			return fmt.Errorf("%w: a measurement of firmware has %d bytes", ErrFormat, len(m))
		}
	}
	return nil
}

// errEmpty is for what would allow everything, and looks as if it allowed nothing.
var errEmpty = fmt.Errorf("%w: an empty list or table, which would ask for nothing: leave it out", ErrFormat)

// vacant says whether a list is there and has nothing.
func vacant[T any](list []T) bool { return list != nil && len(list) == 0 }

func (l *LayerPolicy) check() error {
	if vacant(l.Quoted) || vacant(l.BootAggregates) {
		return errEmpty
	}
	for _, n := range l.Quoted {
		if n < 0 || n > maxPCR {
			return fmt.Errorf("%w: %d is no PCR", ErrFormat, n)
		}
	}
	for _, a := range l.BootAggregates {
		if len(a) != 32 {
			return fmt.Errorf("%w: a boot aggregate of %d bytes", ErrFormat, len(a))
		}
	}
	for _, table := range []map[string]map[string][]Hex{l.PCRs, l.Events} {
		if err := checkTable(table); err != nil {
			return err
		}
	}
	for _, pcrs := range l.Events {
		for number := range pcrs {
			if n, _ := parsePCR(number); n >= firmwarePCRs {
				return fmt.Errorf("%w: events of PCR %d are not judged, only those of 0 to 7", ErrFormat, n)
			}
		}
	}
	return nil
}

// checkTable refuses what would never be compared, and so would allow everything.
func checkTable(table map[string]map[string][]Hex) error {
	if table != nil && len(table) == 0 {
		return errEmpty
	}
	for name, pcrs := range table {
		b := bankNamed(name)
		if b == nil || len(pcrs) == 0 {
			return fmt.Errorf("%w: bank %.20q is unknown or empty", ErrFormat, name)
		}
		for number, values := range pcrs {
			if _, err := parsePCR(number); err != nil {
				return err
			}
			for _, v := range values {
				if len(v) != b.hash.Size() {
					return fmt.Errorf("%w: PCR %s of %s with %d bytes", ErrFormat, number, name, len(v))
				}
			}
		}
	}
	return nil
}

// modes gives the accepted modes.
func (p *Policy) modes() []Mode {
	if len(p.Modes) == 0 {
		return []Mode{ModeMap}
	}
	return p.Modes
}

func (l *LayerPolicy) wantsLog() bool { return l.Log || l.SecureBoot || len(l.Events) > 0 }

// asks says whether there has to be such a layer.
func (l *LayerPolicy) asks() bool { return !l.empty() || l.wantsLog() || len(l.Quoted) > 0 }

// empty says whether nothing is asked for beyond what every evidence has.
func (l *LayerPolicy) empty() bool {
	return len(l.PCRs)+len(l.Events)+len(l.BootAggregates) == 0 && !l.SecureBoot
}

func (c *CardPolicy) empty() bool {
	return len(c.Firmware) == 0 && !c.HardwareKey && !c.HardwareCounter
}
