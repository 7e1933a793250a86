// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"bytes"

	"hwvtpm/coproc/abi"
)

// create makes a key and returns its transient handle, its public area and its
// name (Part 3, 24.1, TPM2_CreatePrimary).
func (p *provisioner) create(k *key) (handle uint32, public, name []byte, err error) {
	const command = "TPM2_CreatePrimary"
	params := sized(nil, make([]byte, 4)) // no password, no data
	params = sized(params, k.public)
	params = append(params, make([]byte, 2+4)...) // no outside data, no PCR
	resp, err := p.do(call{name: command, code: 0x131, handles: []uint32{k.hierarchy}, auths: 1, params: params})
	if err != nil {
		return 0, nil, nil, err
	}
	r := reader{b: resp}
	handle = r.u32()
	r.u32() // size of the parameters
	public = bytes.Clone(r.sized())
	r.sized()     // creation data
	r.sized()     // its hash
	r.take(2 + 4) // ticket: tag, hierarchy
	r.sized()     // ticket: digest
	name = bytes.Clone(r.sized())
	return handle, public, name, r.err(command)
}

// persist gives an object a persistent handle (Part 3, 28.5, TPM2_EvictControl).
func (p *provisioner) persist(object, handle uint32) error {
	_, err := p.do(call{
		name: "TPM2_EvictControl", code: 0x120,
		handles: []uint32{rhOwner, object}, auths: 1,
		params: be.AppendUint32(nil, handle),
	})
	return err
}

func (p *provisioner) flush(object uint32) error {
	_, err := p.do(call{name: "TPM2_FlushContext", code: 0x165, params: be.AppendUint32(nil, object)})
	return err
}

// public reads the public area of an object, and its name (Part 3, 12.4,
// TPM2_ReadPublic).
func (p *provisioner) public(handle uint32) (public, name []byte, err error) {
	const command = "TPM2_ReadPublic"
	resp, err := p.do(call{name: command, code: 0x173, handles: []uint32{handle}})
	if err != nil {
		return nil, nil, err
	}
	r := reader{b: resp}
	public, name = bytes.Clone(r.sized()), bytes.Clone(r.sized())
	return public, name, r.err(command)
}

// install makes a key persistent. stored is false if its handle is taken, or not
// to be given without the owner's password; the key is what it is all the same,
// since it follows from the hierarchy's seed.
func (p *provisioner) install(k *key) (ek EK, stored bool, err error) {
	object, public, name, err := p.create(k)
	if err != nil {
		return EK{}, false, err
	}
	switch err := p.persist(object, k.handle); {
	case err == nil:
		stored = true
	case !refused(err, rcNVDefined, rcBadAuth):
		return EK{}, false, err
	}
	return EK{abi.EK{Handle: k.handle, Name: name}, public}, stored, p.flush(object)
}
