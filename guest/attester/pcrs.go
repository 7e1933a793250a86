// SPDX-License-Identifier: Apache-2.0

package attester

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"hwvtpm/vtpm/attest"
)

// Selection says what to quote.
type Selection struct {
	Banks []string // "sha256" and so on; none: all that the TPM has
	PCRs  []uint   // 0 to 23; none: DefaultPCRs
}

// DefaultPCRs are those that only a restart of the machine resets: 0 to 15.
var DefaultPCRs = []uint{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}

// maxPCR is the highest PCR of a PC Client TPM.
const maxPCR = 23

// banks are the names of PCR banks in evidence.
var banks = map[tpm2.TPMAlgID]string{
	tpm2.TPMAlgSHA1: "sha1", tpm2.TPMAlgSHA256: "sha256", tpm2.TPMAlgSHA384: "sha384", tpm2.TPMAlgSHA512: "sha512",
}

// Check reports what is wrong with a selection as such: ErrSelection.
func (s Selection) Check() error {
	for _, name := range s.Banks {
		if !slices.Contains(slices.Collect(maps.Values(banks)), name) {
			return fmt.Errorf("%w: no bank is called %.20q", ErrSelection, name)
		}
	}
	for _, n := range s.PCRs {
		if n > maxPCR {
			return fmt.Errorf("%w: there is no PCR %d", ErrSelection, n)
		}
	}
	return nil
}

// of is the selection of a TPM: in its banks, in its order.
func (s Selection) of(tpm transport.TPM) (tpm2.TPMLPCRSelection, error) {
	r, err := tpm2.GetCapability{Capability: tpm2.TPMCapPCRs, PropertyCount: 1}.Execute(tpm)
	if err != nil {
		return tpm2.TPMLPCRSelection{}, fmt.Errorf("attester: list PCR banks: %w", err)
	}
	list, err := r.CapabilityData.Data.AssignedPCR()
	if err != nil {
		return tpm2.TPMLPCRSelection{}, fmt.Errorf("attester: list PCR banks: %w", err)
	}
	pcrs := s.PCRs
	if len(pcrs) == 0 {
		pcrs = DefaultPCRs
	}
	var out tpm2.TPMLPCRSelection
	left := slices.Clone(s.Banks)
	for _, bank := range list.PCRSelections {
		name := banks[bank.Hash]
		if name == "" || len(numbers(bank)) == 0 || len(s.Banks) > 0 && !slices.Contains(s.Banks, name) {
			continue
		}
		out.PCRSelections = append(out.PCRSelections, tpm2.TPMSPCRSelection{Hash: bank.Hash, PCRSelect: tpm2.PCClientCompatible.PCRs(pcrs...)})
		left = slices.DeleteFunc(left, func(n string) bool { return n == name })
	}
	if len(left) > 0 || len(out.PCRSelections) == 0 {
		return tpm2.TPMLPCRSelection{}, fmt.Errorf("%w: the TPM has no such bank %v", ErrSelection, left)
	}
	return out, nil
}

// numbers lists the PCRs of a bank, ascending.
func numbers(s tpm2.TPMSPCRSelection) []int {
	var out []int
	for n := range 8 * len(s.PCRSelect) {
		if s.PCRSelect[n/8]&(1<<(n%8)) != 0 {
			out = append(out, n)
		}
	}
	return out
}

// readPCRs reads what is selected, in as many commands as the TPM takes for it (TCG
// Part 3, "TPM2_PCR_Read"): the values may be of different times.
func readPCRs(tpm transport.TPM, want tpm2.TPMLPCRSelection) (attest.PCRs, error) {
	left, values := clone(want), attest.PCRs{}
	for slices.ContainsFunc(left.PCRSelections, func(b tpm2.TPMSPCRSelection) bool { return len(numbers(b)) > 0 }) {
		r, err := tpm2.PCRRead{PCRSelectionIn: left}.Execute(tpm)
		if err != nil {
			return nil, fmt.Errorf("attester: read PCRs: %w", err)
		}
		digests := r.PCRValues.Digests
		if len(digests) == 0 {
			return nil, errors.New("attester: the TPM gives no values of some PCRs")
		}
		for _, got := range r.PCRSelectionOut.PCRSelections {
			for _, n := range numbers(got) {
				if len(digests) == 0 || !take(left, got.Hash, n) {
					return nil, errors.New("attester: the TPM gives other PCRs than it was asked for")
				}
				values.Set(banks[got.Hash], n, digests[0].Buffer)
				digests = digests[1:]
			}
		}
	}
	return values, nil
}

func clone(s tpm2.TPMLPCRSelection) (out tpm2.TPMLPCRSelection) {
	for _, b := range s.PCRSelections {
		out.PCRSelections = append(out.PCRSelections, tpm2.TPMSPCRSelection{Hash: b.Hash, PCRSelect: slices.Clone(b.PCRSelect)})
	}
	return out
}

// take removes one PCR, and says whether it was there.
func take(s tpm2.TPMLPCRSelection, alg tpm2.TPMAlgID, n int) bool {
	for _, b := range s.PCRSelections {
		if bit := byte(1) << (n % 8); b.Hash == alg && n/8 < len(b.PCRSelect) && b.PCRSelect[n/8]&bit != 0 {
			b.PCRSelect[n/8] &^= bit
			return true
		}
	}
	return false
}
