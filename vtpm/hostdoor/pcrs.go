// SPDX-License-Identifier: Apache-2.0

package hostdoor

import (
	"encoding/hex"
	"errors"
	"fmt"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/vtpm/door"
)

// names are the banks in a message.
var names = map[string]abi.Banks{
	"sha1": abi.BankSHA1, "sha256": abi.BankSHA256, "sha384": abi.BankSHA384, "sha512": abi.BankSHA512,
}

// FromMap makes a message of a map.
func FromMap(m *coproc.PCRMap) door.PCRs {
	p := door.PCRs{Banks: map[string][]string{}}
	for name, bank := range names {
		if m.Banks()&bank == 0 {
			continue
		}
		for pcr := range abi.HostPCRs {
			p.Banks[name] = append(p.Banks[name], hex.EncodeToString(m.Value(bank, pcr)))
		}
	}
	return p
}

// ToMap makes a map of a message. It has at least one bank.
func ToMap(p door.PCRs) (coproc.PCRMap, error) {
	var m coproc.PCRMap
	for name, texts := range p.Banks {
		bank, known := names[name]
		if !known {
			return coproc.PCRMap{}, fmt.Errorf("PCRs of the host: no bank is called %q", name)
		}
		values := make([][]byte, len(texts))
		for i, text := range texts {
			var err error
			if values[i], err = hex.DecodeString(text); err != nil {
				return coproc.PCRMap{}, fmt.Errorf("PCRs of the host: %s, PCR %d: %w", name, i, err)
			}
		}
		if err := m.SetBank(bank, values); err != nil {
			return coproc.PCRMap{}, fmt.Errorf("PCRs of the host: %w", err)
		}
	}
	if m.Banks() == 0 {
		return m, errors.New("PCRs of the host: there are none")
	}
	return m, nil
}
