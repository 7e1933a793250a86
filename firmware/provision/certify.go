// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"errors"
	"fmt"

	"hwvtpm/coproc/abi"
)

// Unreadable is what stands for the content of an NV index that is there and that
// the platform cannot read. It is no certificate.
var Unreadable = []byte{0}

var errNotWritten = errors.New("an NV index has not what was written to it")

// Properties say what kind of TPM it is (Part 2, 6.13, TPM_PT).
type Properties struct{ Maker, Firmware, Level, Revision uint32 }

// Certificates are a TPM's endorsement keys, and what is about them in NV memory.
type Certificates struct {
	// Keys are in the order of abi.Keys. In what the TPM has, DER is the content
	// of Index, and Public is empty if the key is not known. In what is to be
	// written, DER replaces what is there if Index is not zero.
	Keys []abi.EKCertificate
	// Chain is the content of the indices for issuers' certificates. In what is
	// to be written, empty leaves them alone.
	Chain []byte
}

// Certify tells issue what certificates of endorsement keys the TPM has, and
// writes those that it gives: readable by all, removable by the platform, and
// locked. fresh: whatever certificates there are belong to keys that are gone, and
// are removed first. eks are those of the result of Provision, NewIdentity or
// Identify. It starts with a power cycle, and ends as Provision does.
func Certify(t TPM, restart func() error, eks []EK, fresh bool, issue func(*Properties, *Certificates) (*Certificates, error)) error {
	p := &provisioner{tpm: t, restart: restart}
	err := p.powerCycle()
	if err == nil && fresh {
		err = p.removeAll()
	}
	if err == nil {
		err = p.certify(eks, issue)
	}
	if err == nil {
		err = p.shutdown()
	}
	if refused(err, rcNVSpace) {
		err = fmt.Errorf("%w: %w", ErrFull, err)
	}
	if err != nil {
		return fmt.Errorf("certify: %w", err)
	}
	return nil
}

func (p *provisioner) certify(eks []EK, issue func(*Properties, *Certificates) (*Certificates, error)) error {
	props, err := p.properties()
	if err != nil {
		return err
	}
	has, err := p.certificates(eks)
	if err != nil {
		return err
	}
	give, err := issue(&props, has)
	if err != nil {
		return err
	}
	for _, k := range give.Keys {
		if k.Index == 0 {
			continue
		}
		if err := p.replace(k.Index, k.DER); err != nil {
			return err
		}
	}
	if len(give.Chain) == 0 {
		return nil
	}
	return p.putChain(give.Chain)
}

// replace puts an index in the place of what is there.
func (p *provisioner) replace(index uint32, data []byte) error {
	if there, err := p.indices(index, index+1); err != nil {
		return err
	} else if len(there) > 0 {
		if err := p.remove(index); err != nil {
			return err
		}
	}
	return p.put(index, data)
}

// putChain writes the issuers' certificates to as many indices as it takes (EK
// Credential Profile 2.5, 2.2.1.5.2).
func (p *provisioner) putChain(chain []byte) error {
	if err := p.removeChain(); err != nil {
		return err
	}
	for index := abi.IndexEKChain; len(chain) > 0 && index < abi.IndexEKChainEnd; index++ {
		n := min(len(chain), maxIndex)
		if err := p.put(index, chain[:n]); err != nil {
			return err
		}
		chain = chain[n:]
	}
	return nil
}

func (p *provisioner) removeChain() error {
	old, err := p.indices(abi.IndexEKChain, abi.IndexEKChainEnd)
	for _, index := range old {
		if err == nil {
			err = p.remove(index)
		}
	}
	return err
}

// removeAll removes all certificates of endorsement keys, and their chain.
func (p *provisioner) removeAll() error {
	for _, k := range catalog {
		if !k.isEK() {
			continue
		}
		index := abi.CertificateIndex(k.handle)
		there, err := p.indices(index, index+1)
		if err == nil && len(there) > 0 {
			err = p.remove(index)
		}
		if err != nil {
			return err
		}
	}
	return p.removeChain()
}

// certificates reads what the TPM has.
func (p *provisioner) certificates(eks []EK) (*Certificates, error) {
	c := &Certificates{}
	for _, k := range catalog {
		if !k.isEK() {
			continue
		}
		e := abi.EKCertificate{Handle: k.handle, Index: abi.CertificateIndex(k.handle)}
		for _, ek := range eks {
			if ek.Handle == k.handle {
				e.Public = ek.Public
			}
		}
		var err error
		if e.DER, err = p.content(e.Index); err != nil {
			return nil, err
		}
		if len(e.DER) == 0 {
			e.Index = 0
		}
		if e.Index != 0 || len(e.Public) > 0 {
			c.Keys = append(c.Keys, e)
		}
	}
	chain, err := p.indices(abi.IndexEKChain, abi.IndexEKChainEnd)
	if err != nil {
		return nil, err
	}
	for _, index := range chain {
		part, err := p.content(index)
		if err != nil {
			return nil, err
		}
		c.Chain = append(c.Chain, part...)
	}
	return c, nil
}

// content is that of an index: nothing if there is none, and Unreadable if it
// cannot be read, or is empty.
func (p *provisioner) content(index uint32) ([]byte, error) {
	b, ok, err := p.read(index)
	if err == nil && (!ok || b != nil && len(b) == 0) {
		return Unreadable, nil
	}
	return b, err
}

// properties reads what kind of TPM it is.
func (p *provisioner) properties() (Properties, error) {
	var v Properties
	for _, want := range []struct {
		tag uint32
		to  *uint32
	}{{0x101, &v.Level}, {0x102, &v.Revision}, {0x105, &v.Maker}, {0x10b, &v.Firmware}} {
		const name, capProperties = "TPM2_GetCapability(TPM_CAP_TPM_PROPERTIES)", 6
		params := be.AppendUint32(nil, capProperties)
		params = be.AppendUint32(params, want.tag)
		params = be.AppendUint32(params, 1)
		resp, err := p.do(call{name: name, code: 0x17a, params: params})
		if err != nil {
			return v, err
		}
		r := reader{b: resp}
		r.take(1 + 4) // more data, capability
		n, tag := r.u32(), r.u32()
		*want.to = r.u32()
		if r.short || n != 1 || tag != want.tag {
			return v, fmt.Errorf("%s: %w", name, errResponse)
		}
	}
	return v, nil
}

// Asleep tells whether the TPM was shut down to go on where it was (Part 3, 9.3,
// TPM2_Startup(STATE)), as a machine that sleeps expects. It takes the TPM through
// a power cycle and starts it.
func Asleep(t TPM, restart func() error) (bool, error) {
	const suState, rcValue = 0x0001, 0x084
	p := &provisioner{tpm: t, restart: restart}
	if err := p.restart(); err != nil {
		return false, fmt.Errorf("power cycle: %w", err)
	}
	_, err := p.do(call{name: "TPM2_Startup(STATE)", code: 0x144, params: be.AppendUint16(nil, suState)})
	if refused(err, rcValue) {
		return false, nil
	}
	return err == nil, err
}
