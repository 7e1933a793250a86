// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto"
	_ "crypto/sha1" // a bank; never enough by itself
	_ "crypto/sha256"
	_ "crypto/sha512"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/coproc/abi"
)

// firmwarePCRs are those that the TCG PC Client profile gives to the platform's
// firmware, 0 to 7: all that attestation starts from.
const firmwarePCRs = abi.HostPCRs

// maxPCR is the highest PCR of a PC Client TPM.
const maxPCR = 23

// PCRs are values by bank ("sha1", "sha256", "sha384", "sha512") and by the PCR's
// number in decimal.
type PCRs map[string]map[string]Hex

// bank is a PCR bank. Tables are in the order of strength, the weakest first.
type bank struct {
	name string
	alg  tpm2.TPMAlgID
	hash crypto.Hash
	abi  abi.Banks
}

var banks = []bank{
	{"sha1", tpm2.TPMAlgSHA1, crypto.SHA1, abi.BankSHA1},
	{"sha256", tpm2.TPMAlgSHA256, crypto.SHA256, abi.BankSHA256},
	{"sha384", tpm2.TPMAlgSHA384, crypto.SHA384, abi.BankSHA384},
	{"sha512", tpm2.TPMAlgSHA512, crypto.SHA512, abi.BankSHA512},
}

// strong says whether the bank's hash resists collisions.
func (b *bank) strong() bool { return b.hash != crypto.SHA1 }

func bankNamed(name string) *bank {
	for i := range banks {
		if banks[i].name == name {
			return &banks[i]
		}
	}
	return nil
}

func bankOf(alg tpm2.TPMAlgID) *bank {
	for i := range banks {
		if banks[i].alg == alg {
			return &banks[i]
		}
	}
	return nil
}

// parsePCR reads a PCR's number in its one spelling.
func parsePCR(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > maxPCR || strconv.Itoa(n) != text {
		return 0, fmt.Errorf("%w: %.10q is no PCR", ErrFormat, text)
	}
	return n, nil
}

func (p PCRs) check() error {
	if len(p) == 0 {
		return fmt.Errorf("%w: no PCR values", ErrFormat)
	}
	for name, values := range p {
		b := bankNamed(name)
		if b == nil {
			return fmt.Errorf("%w: no PCR bank is called %.20q", ErrFormat, name)
		}
		for number, value := range values {
			if _, err := parsePCR(number); err != nil {
				return err
			}
			if len(value) != b.hash.Size() {
				return fmt.Errorf("%w: PCR %s of %s has %d bytes", ErrFormat, number, name, len(value))
			}
		}
	}
	return nil
}

// Set gives a PCR a value.
func (p PCRs) Set(bank string, pcr int, value []byte) {
	if p[bank] == nil {
		p[bank] = map[string]Hex{}
	}
	p[bank][strconv.Itoa(pcr)] = value
}

// Get gives a PCR's value, or nil.
func (p PCRs) Get(bank string, pcr int) []byte { return p[bank][strconv.Itoa(pcr)] }

// numbers lists the PCRs that a bank has values for.
func (p PCRs) numbers(bank string) []int {
	var all []int
	for text := range p[bank] {
		if n, err := parsePCR(text); err == nil {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all
}

// banks lists the banks with values, the weakest first.
func (p PCRs) banks() []*bank {
	var all []*bank
	for i := range banks {
		if len(p[banks[i].name]) > 0 {
			all = append(all, &banks[i])
		}
	}
	return all
}

// has says whether a bank has all PCRs of the list.
func (p PCRs) has(bank string, pcrs []int) bool {
	return !slices.ContainsFunc(pcrs, func(n int) bool { return p.Get(bank, n) == nil })
}

// names lists the banks' names.
func (p PCRs) names() []string { return slices.Sorted(maps.Keys(p)) }
