// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"bytes"
	"fmt"

	"hwvtpm/coproc/abi"
)

// ShowEvidence puts evidence of the host's boot into abi.BootEvidenceIndex, and locks
// it. The TPM has just had its TPM2_Startup(CLEAR), which empties the platform's
// password. What else is at the index goes away. If the error is an *Error, the TPM has
// refused, and the index may be there in part.
func ShowEvidence(t TPM, evidence []byte) error {
	if err := abi.CheckBootEvidence(evidence); err != nil {
		return err
	}
	p := &provisioner{tpm: t}
	err := p.makeEvidenceIndex()
	if err == nil {
		data := make([]byte, abi.MaxBootEvidence)
		copy(data, evidence)
		err = p.write(abi.BootEvidenceIndex, data)
	}
	if err != nil {
		return fmt.Errorf("boot evidence: %w", err)
	}
	return nil
}

// HideEvidence takes the index away, if it is there. When, see ShowEvidence.
func HideEvidence(t TPM) error {
	p := &provisioner{tpm: t}
	if err := p.dropEvidenceIndex(); err != nil {
		return fmt.Errorf("boot evidence: %w", err)
	}
	return nil
}

func (p *provisioner) dropEvidenceIndex() error {
	const rcHandle = 0x08b
	err := p.remove(abi.BootEvidenceIndex)
	if refused(err, rcHandle) {
		return nil
	}
	return err
}

// makeEvidenceIndex makes the index unless it is there as it has to be, so that one
// that was made while there was room stays.
func (p *provisioner) makeEvidenceIndex() error {
	public := nvPublic(abi.BootEvidenceIndex, nvEvidence, abi.MaxBootEvidence)
	if p.hasEvidenceIndex(public) {
		return nil
	}
	if err := p.dropEvidenceIndex(); err != nil {
		return err
	}
	return p.define(public)
}

// hasEvidenceIndex tells whether the index is there with this TPMS_NV_PUBLIC, but for
// whether it was written. If that can't be told, it is not.
func (p *provisioner) hasEvidenceIndex(public []byte) bool {
	rest, err := p.do(call{name: "TPM2_NV_ReadPublic", code: 0x169, handles: []uint32{abi.BootEvidenceIndex}})
	if err != nil {
		return false
	}
	r := reader{b: rest}
	got := bytes.Clone(r.sized())
	if r.short || len(got) != len(public) {
		return false
	}
	const attributes = 4 + 2 // their offset
	be.PutUint32(got[attributes:], be.Uint32(got[attributes:])&^nvWritten)
	return bytes.Equal(got, public)
}
