// SPDX-License-Identifier: Apache-2.0

package hosttpm

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"strings"

	"github.com/google/go-tpm/tpm2"
)

const maxPCR = 24

// Selection is a choice of PCRs of one bank.
type Selection struct {
	Bank tpm2.TPMAlgID // tpm2.TPMAlgSHA256 or tpm2.TPMAlgSHA384
	PCRs []uint        // 0 to 23, at least one
}

// String is the selection in the form of the TPM tools, such as "sha256:0,2,7".
func (s Selection) String() string {
	bank := "sha256"
	if s.Bank == tpm2.TPMAlgSHA384 {
		bank = "sha384"
	}
	return bank + ":" + strings.Join(strings.Fields(strings.Trim(fmt.Sprint(s.PCRs), "[]")), ",")
}

// mask checks the selection and gives it with PCR n as bit n.
func (s Selection) mask() (uint32, error) {
	var m uint32
	for _, n := range s.PCRs {
		if n >= maxPCR {
			return 0, fmt.Errorf("no PCR %d: %w", n, fs.ErrInvalid)
		}
		m |= 1 << n
	}
	if m == 0 || s.digestSize() == 0 {
		return 0, fmt.Errorf("PCR selection needs a PCR, and a bank of SHA-256 or SHA-384: %w", fs.ErrInvalid)
	}
	return m, nil
}

// selectionOf is the selection of a mask, with PCRs in order.
func selectionOf(bank tpm2.TPMAlgID, mask uint32) (Selection, error) {
	s := Selection{Bank: bank}
	for n := range uint(maxPCR) {
		if mask&(1<<n) != 0 {
			s.PCRs = append(s.PCRs, n)
		}
	}
	got, err := s.mask()
	if err == nil && got != mask {
		err = fmt.Errorf("PCR selection %#x: %w", mask, fs.ErrInvalid)
	}
	return s, err
}

func (s Selection) digestSize() int {
	switch s.Bank {
	case tpm2.TPMAlgSHA256:
		return 32
	case tpm2.TPMAlgSHA384:
		return 48
	}
	return 0
}

func (s Selection) list() tpm2.TPMLPCRSelection {
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{
		{Hash: s.Bank, PCRSelect: tpm2.PCClientCompatible.PCRs(s.PCRs...)},
	}}
}

// read reads the PCRs one by one: a TPM may answer fewer than it was asked for,
// and says so only by leaving them out.
func (s Selection) read(t TPM) ([][]byte, error) {
	var values [][]byte
	for _, n := range s.PCRs {
		one := Selection{s.Bank, []uint{n}}
		rsp, err := tpm2.PCRRead{PCRSelectionIn: one.list()}.Execute(t.Transport)
		if err != nil {
			return nil, fmt.Errorf("host TPM: read PCR %d: %w", n, err)
		}
		if d := rsp.PCRValues.Digests; len(d) != 1 || len(d[0].Buffer) != s.digestSize() {
			return nil, fmt.Errorf("host TPM has no PCR %s: %w", one, fs.ErrInvalid)
		}
		values = append(values, rsp.PCRValues.Digests[0].Buffer)
	}
	return values, nil
}

// policy is the digest of the policy that demands these values (TPM 2.0 Part 3,
// TPM2_PolicyPCR).
func (s Selection) policy(values [][]byte) ([]byte, error) {
	digest := sha256.Sum256(bytes.Join(values, nil))
	calc, err := tpm2.NewPolicyCalculator(tpm2.TPMAlgSHA256)
	if err == nil {
		err = tpm2.PolicyPCR{Pcrs: s.list(), PcrDigest: tpm2.TPM2BDigest{Buffer: digest[:]}}.Update(calc)
	}
	if err != nil {
		return nil, fmt.Errorf("PCR policy: %w", err)
	}
	return calc.Hash().Digest, nil
}

// differences says which PCRs are not as they were.
func (s Selection) differences(was, is [][]byte) string {
	var out []string
	for i, n := range s.PCRs {
		if !bytes.Equal(was[i], is[i]) {
			out = append(out, fmt.Sprintf("PCR %d is %x, was %x", n, is[i], was[i]))
		}
	}
	return strings.Join(out, "; ")
}
