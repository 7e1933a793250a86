// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"bytes"
	"errors"
)

// Attributes of an NV index (Part 2, 13.4, TPMA_NV).
const (
	nvPPWrite        = 1 << 0
	nvWriteLocked    = 1 << 11
	nvWriteDefine    = 1 << 13
	nvWriteStClear   = 1 << 14
	nvPPRead         = 1 << 16
	nvOwnerRead      = 1 << 17
	nvAuthRead       = 1 << 18
	nvNoDA           = 1 << 25
	nvWritten        = 1 << 29
	nvPlatformCreate = 1 << 30

	// nvCertificate are those of certificates, as swtpm_setup gives them: the
	// platform's, for all to read, and not to be written again once locked.
	nvCertificate = nvPPWrite | nvWriteDefine | nvPPRead | nvOwnerRead | nvAuthRead | nvNoDA | nvPlatformCreate
)

// nvEvidence are those of boot evidence: written by the platform, locked until the next
// reset, and for all to read.
const nvEvidence = nvPPWrite | nvWriteStClear | nvPPRead | nvOwnerRead | nvAuthRead | nvNoDA | nvPlatformCreate

// Sizes of NV memory in libtpms, in bytes.
const (
	maxIndex    = 2048 // of one index
	maxTransfer = 1024 // of one read or write
)

// indices lists the NV indices from first to below end (Part 3, 30.2,
// TPM2_GetCapability, TPM_CAP_HANDLES).
func (p *provisioner) indices(first, end uint32) ([]uint32, error) {
	const name, capHandles, most = "TPM2_GetCapability(TPM_CAP_HANDLES)", 1, 254
	params := be.AppendUint32(nil, capHandles)
	params = be.AppendUint32(params, first)
	params = be.AppendUint32(params, most)
	resp, err := p.do(call{name: name, code: 0x17a, params: params})
	if err != nil {
		return nil, err
	}
	r := reader{b: resp}
	r.take(1 + 4) // more data, capability
	var list []uint32
	for n := r.u32(); n > 0 && !r.short; n-- {
		if index := r.u32(); index >= first && index < end {
			list = append(list, index)
		}
	}
	return list, r.err(name)
}

// nvSize gives attributes and size of an index (Part 3, 31.6, TPM2_NV_ReadPublic).
func (p *provisioner) nvSize(index uint32) (attributes uint32, size int, err error) {
	const name = "TPM2_NV_ReadPublic"
	resp, err := p.do(call{name: name, code: 0x169, handles: []uint32{index}})
	if err != nil {
		return 0, 0, err
	}
	r := reader{b: resp}
	public := reader{b: r.sized()}
	public.take(4 + 2) // index, name algorithm
	attributes = public.u32()
	public.sized() // policy
	size = int(public.u16())
	return attributes, size, public.err(name)
}

// read reads an index as the platform (Part 3, 31.13, TPM2_NV_Read). ok is false
// if there is something that the platform cannot read; without an index, b is nil.
func (p *provisioner) read(index uint32) (b []byte, ok bool, err error) {
	const rcHandle = 0x08b
	attributes, size, err := p.nvSize(index)
	if refused(err, rcHandle) {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, err
	}
	if attributes&nvPPRead == 0 || attributes&nvWritten == 0 || size > maxIndex {
		return nil, false, nil
	}
	b = []byte{}
	for len(b) < size {
		params := be.AppendUint16(nil, uint16(min(size-len(b), maxTransfer)))
		params = be.AppendUint16(params, uint16(len(b)))
		resp, err := p.do(call{name: "TPM2_NV_Read", code: 0x14e, handles: []uint32{rhPlatform, index}, auths: 1, params: params})
		if _, is := errors.AsType[*Error](err); is {
			return nil, false, nil // locked, or of a kind that is not read so
		}
		if err != nil {
			return nil, false, err
		}
		r := reader{b: resp}
		r.u32() // size of the parameters
		part := r.sized()
		if r.short || len(part) == 0 {
			return nil, false, r.err("TPM2_NV_Read")
		}
		b = append(b, part...)
	}
	return b, true, nil
}

// remove removes an index if it is there (Part 3, 31.4, TPM2_NV_UndefineSpace).
func (p *provisioner) remove(index uint32) error {
	_, err := p.do(call{name: "TPM2_NV_UndefineSpace", code: 0x122, handles: []uint32{rhPlatform, index}, auths: 1})
	return err
}

// nvPublic gives the TPMS_NV_PUBLIC (Part 2, 13.5) of an index without a policy.
func nvPublic(index, attributes uint32, size int) []byte {
	b := be.AppendUint32(nil, index)
	b = be.AppendUint16(b, algSHA256)
	b = be.AppendUint32(b, attributes)
	b = sized(b, nil)
	return be.AppendUint16(b, uint16(size))
}

// define makes an index without a password (Part 3, 31.3, TPM2_NV_DefineSpace).
func (p *provisioner) define(public []byte) error {
	params := sized(sized(nil, nil), public)
	_, err := p.do(call{name: "TPM2_NV_DefineSpace", code: 0x12a, handles: []uint32{rhPlatform}, auths: 1, params: params})
	return err
}

// write fills an index and locks it (Part 3, 31.7 and 31.11: TPM2_NV_Write,
// TPM2_NV_WriteLock).
func (p *provisioner) write(index uint32, data []byte) error {
	handles := []uint32{rhPlatform, index}
	for at := 0; at < len(data); at += maxTransfer {
		params := be.AppendUint16(sized(nil, data[at:min(at+maxTransfer, len(data))]), uint16(at))
		if _, err := p.do(call{name: "TPM2_NV_Write", code: 0x137, handles: handles, auths: 1, params: params}); err != nil {
			return err
		}
	}
	_, err := p.do(call{name: "TPM2_NV_WriteLock", code: 0x138, handles: handles, auths: 1})
	return err
}

// put makes an index with a content, locks it, and reads it back.
func (p *provisioner) put(index uint32, data []byte) error {
	if err := p.define(nvPublic(index, nvCertificate, len(data))); err != nil {
		return err
	}
	if err := p.write(index, data); err != nil {
		return err
	}
	attributes, _, err := p.nvSize(index)
	if err != nil {
		return err
	}
	got, _, err := p.read(index)
	if err == nil && (!bytes.Equal(got, data) || attributes != nvCertificate|nvWritten|nvWriteLocked) {
		err = errNotWritten
	}
	return err
}
