// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"bytes"
	"fmt"

	"hwvtpm/coproc/abi"
)

// maxNVBuffer is how much TPM2_NV_Write takes at once: libtpms' MAX_NV_BUFFER_SIZE.
const maxNVBuffer = 1024

// evidenceAttributes are the TPMA_NV (Part 2, 13.4) of the index: written by the
// platform, locked by TPM2_NV_WriteLock until the next reset, and readable with any
// authority.
const evidenceAttributes = 1<<0 /* PPWRITE */ | 1<<14 /* WRITE_STCLEAR */ | 1<<16 /* PPREAD */ |
	1<<17 /* OWNERREAD */ | 1<<18 /* AUTHREAD */ | 1<<25 /* NO_DA */ | 1<<30 /* PLATFORMCREATE */

const attributeWritten = 1 << 29

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
	data := make([]byte, abi.MaxBootEvidence)
	copy(data, evidence)
	for at := 0; err == nil && at < len(data); at += maxNVBuffer {
		params := append(be.AppendUint16(nil, maxNVBuffer), data[at:at+maxNVBuffer]...)
		_, err = p.doEvidence("TPM2_NV_Write", 0x137, be.AppendUint16(params, uint16(at)))
	}
	if err == nil {
		_, err = p.doEvidence("TPM2_NV_WriteLock", 0x138, nil)
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

// doEvidence runs a command of the platform on the index.
func (p *provisioner) doEvidence(name string, code uint32, params []byte) ([]byte, error) {
	return p.do(call{name: name, code: code, handles: []uint32{rhPlatform, abi.BootEvidenceIndex}, auths: 1, params: params})
}

func (p *provisioner) dropEvidenceIndex() error {
	const rcHandle = 0x08b
	_, err := p.doEvidence("TPM2_NV_UndefineSpace", 0x122, nil)
	if refused(err, rcHandle) {
		return nil
	}
	return err
}

// makeEvidenceIndex makes the index unless it is there as it has to be, so that one
// that was made while there was room stays.
func (p *provisioner) makeEvidenceIndex() error {
	public := be.AppendUint32(nil, abi.BootEvidenceIndex)
	public = be.AppendUint16(public, 0x000b) // its name is by SHA-256
	public = be.AppendUint32(public, evidenceAttributes)
	public = be.AppendUint16(public, 0) // no policy
	public = be.AppendUint16(public, abi.MaxBootEvidence)
	if p.hasEvidenceIndex(public) {
		return nil
	}
	if err := p.dropEvidenceIndex(); err != nil {
		return err
	}
	params := be.AppendUint16(nil, 0) // no password
	params = append(be.AppendUint16(params, uint16(len(public))), public...)
	_, err := p.do(call{name: "TPM2_NV_DefineSpace", code: 0x12a, handles: []uint32{rhPlatform}, auths: 1, params: params})
	return err
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
	be.PutUint32(got[attributes:], be.Uint32(got[attributes:])&^attributeWritten)
	return bytes.Equal(got, public)
}
