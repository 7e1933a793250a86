// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"fmt"

	"hwvtpm/coproc/abi"
)

// bankAlgs is the hash algorithm of each bank that can be asked for.
var bankAlgs = map[uint16]abi.Banks{
	0x0004:    abi.BankSHA1,
	algSHA256: abi.BankSHA256,
	algSHA384: abi.BankSHA384,
	0x000d:    abi.BankSHA512,
}

// selectionSize is the size in bytes of the bit map of 24 PCRs.
const selectionSize = 3

// bank is one PCR bank of the TPM.
type bank struct {
	alg uint16
	on  bool // some of its PCRs are allocated
}

// banks reads which PCR banks the TPM has (TPM2_GetCapability, TPM_CAP_PCRS).
// Beside those in use a TPM lists the ones that it could allocate.
func (p *provisioner) banks() ([]bank, error) {
	const name, capPCRs = "TPM2_GetCapability(TPM_CAP_PCRS)", 5
	params := be.AppendUint32(nil, capPCRs)
	params = be.AppendUint32(params, 0)
	params = be.AppendUint32(params, 1)
	resp, err := p.do(call{name: name, code: 0x17a, params: params})
	if err != nil {
		return nil, err
	}
	r := reader{b: resp}
	r.take(1 + 4) // more data, capability
	var list []bank
	for n := r.u32(); n > 0 && !r.short; n-- {
		b := bank{alg: r.u16()}
		for _, bits := range r.take(int(r.u8())) {
			b.on = b.on || bits != 0
		}
		list = append(list, b)
	}
	return list, r.err(name)
}

// allocate makes exactly the banks asked for the TPM's banks. That takes
// effect at the next start of the TPM (Part 3, 22.5, TPM2_PCR_Allocate).
func (p *provisioner) allocate(want abi.Banks) error {
	const name = "TPM2_PCR_Allocate"
	have, err := p.banks()
	if err != nil {
		return err
	}
	missing := want
	params := be.AppendUint32(nil, uint32(len(have)))
	for _, b := range have {
		bits := byte(0)
		if want&bankAlgs[b.alg] != 0 {
			bits = 0xff
		}
		missing &^= bankAlgs[b.alg]
		params = be.AppendUint16(params, b.alg)
		params = append(params, selectionSize, bits, bits, bits)
	}
	if missing != 0 {
		return fmt.Errorf("the TPM does not have PCR banks %v", missing)
	}
	resp, err := p.do(call{name: name, code: 0x12b, handles: []uint32{rhPlatform}, auths: 1, params: params})
	if err != nil {
		return err
	}
	r := reader{b: resp}
	r.u32() // size of the parameters
	success := r.u8()
	r.u32() // most PCRs that a bank may have
	needed, available := r.u32(), r.u32()
	if err := r.err(name); err != nil {
		return err
	}
	if success != 1 {
		return fmt.Errorf("%s: the banks need %d bytes, the TPM has %d", name, needed, available)
	}
	return nil
}

// checkBanks reports whether the TPM's banks are those asked for.
func (p *provisioner) checkBanks(want abi.Banks) error {
	list, err := p.banks()
	if err != nil {
		return err
	}
	have := abi.Banks(0)
	for _, b := range list {
		if b.on {
			have |= bankAlgs[b.alg]
		}
	}
	if have != want {
		return fmt.Errorf("the TPM has PCR banks %v after it was asked for %v", have, want)
	}
	return nil
}
