// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"bytes"
	"fmt"

	"hwvtpm/coproc/abi"
)

// TPM is a TPM to send commands to; *engine.Engine is one. cmd may be overwritten,
// resp has room for 4096 bytes.
type TPM interface {
	Process(locality uint8, cmd, resp []byte) (n int, stored bool, err error)
}

// EK is an endorsement key.
type EK struct {
	abi.EK
	Public []byte // TPMT_PUBLIC
}

// Names are the keys as a statement has them.
func Names(eks []EK) []abi.EK {
	var names []abi.EK
	for _, ek := range eks {
		names = append(names, ek.EK)
	}
	return names
}

// Result tells what was made.
type Result struct {
	// EKs are the endorsement keys, in the order of abi.Keys.
	EKs []EK
	// Unstored are the handles of those EKs that are not in the TPM's NV
	// memory, because the slot's user has set an owner password, or put
	// something else there. Only NewIdentity can meet that. Software in the
	// guest that wants such a key makes it from its template.
	Unstored []uint32
}

// provisioner is one dialogue with a TPM.
type provisioner struct {
	tpm     TPM
	restart func() error
	resp    [maxResponse]byte
}

// Provision furnishes a TPM that was manufactured and not started yet. restart
// takes the TPM through a power cycle that keeps its permanent state; the choice
// of PCR banks takes effect only there.
//
// Afterwards the TPM is shut down in order: nothing is loaded, and it wants a
// power cycle. The caller saves its permanent state then, and not before.
func Provision(t TPM, restart func() error, keys abi.Keys, banks abi.Banks) (Result, error) {
	if !keys.Valid() || !banks.Valid() {
		return Result{}, fmt.Errorf("provision: keys %#x or PCR banks %#x are not valid", uint32(keys), uint32(banks))
	}
	p := &provisioner{tpm: t, restart: restart}
	if err := p.chooseBanks(banks); err != nil {
		return Result{}, fmt.Errorf("provision: %w", err)
	}
	res, err := p.makeKeys(keys)
	if err == nil && len(res.Unstored) != 0 {
		err = fmt.Errorf("a new TPM refuses to store a key at %#x", res.Unstored[0])
	}
	if err == nil {
		err = p.shutdown()
	}
	if err != nil {
		return Result{}, fmt.Errorf("provision: %w", err)
	}
	return res, nil
}

// NewIdentity gives a TPM a new endorsement seed and new endorsement keys, and
// takes the old ones away, with everything else in the endorsement hierarchy
// (Part 3, 24.5, TPM2_ChangeEPS). NV indices and the storage hierarchy stay, so
// KeySRK in keys does nothing. It starts with a power cycle, and ends as
// Provision does.
func NewIdentity(t TPM, restart func() error, keys abi.Keys) (Result, error) {
	if !keys.Valid() {
		return Result{}, fmt.Errorf("new identity: keys %#x are not valid", uint32(keys))
	}
	p := &provisioner{tpm: t, restart: restart}
	res, err := p.newIdentity(keys)
	if err != nil {
		return Result{}, fmt.Errorf("new identity: %w", err)
	}
	return res, nil
}

// Identify tries a TPM that has lived elsewhere, and reads its endorsement keys.
// It starts with a power cycle, and ends as Provision does.
func Identify(t TPM, restart func() error) ([]EK, error) {
	p := &provisioner{tpm: t, restart: restart}
	err := p.powerCycle()
	var eks []EK
	if err == nil {
		eks, err = EndorsementKeys(t, abi.DefaultKeys)
	}
	if err == nil {
		err = p.shutdown()
	}
	if err != nil {
		return nil, fmt.Errorf("identify: %w", err)
	}
	return eks, nil
}

// EndorsementKeys reads the endorsement keys among keys that the TPM, which must be
// started, has at their persistent handles. A key that is not there is left out. It
// changes nothing.
func EndorsementKeys(t TPM, keys abi.Keys) ([]EK, error) {
	p := &provisioner{tpm: t}
	var eks []EK
	for _, k := range catalog {
		if !k.isEK() || keys&k.flag == 0 {
			continue
		}
		const rcHandle = 0x08b
		public, name, err := p.public(k.handle)
		if refused(err, rcHandle) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k.name, err)
		}
		eks = append(eks, EK{abi.EK{Handle: k.handle, Name: name}, public})
	}
	return eks, nil
}

func (p *provisioner) chooseBanks(banks abi.Banks) error {
	if err := p.startup(); err != nil {
		return err
	}
	if err := p.allocate(banks); err != nil {
		return err
	}
	if err := p.shutdown(); err != nil {
		return err
	}
	if err := p.powerCycle(); err != nil {
		return err
	}
	return p.checkBanks(banks)
}

func (p *provisioner) newIdentity(keys abi.Keys) (Result, error) {
	if err := p.powerCycle(); err != nil {
		return Result{}, err
	}
	// The power cycle has emptied the platform's password, and the new seed
	// empties that of the endorsement hierarchy.
	_, err := p.do(call{name: "TPM2_ChangeEPS", code: 0x124, handles: []uint32{rhPlatform}, auths: 1})
	if err != nil {
		return Result{}, err
	}
	res, err := p.makeKeys(keys &^ abi.KeySRK)
	if err != nil {
		return Result{}, err
	}
	return res, p.shutdown()
}

// makeKeys makes keys, and checks those that are stored.
func (p *provisioner) makeKeys(keys abi.Keys) (Result, error) {
	var res Result
	for _, k := range catalog {
		if keys&k.flag == 0 {
			continue
		}
		ek, stored, err := p.install(&k)
		if err != nil {
			return Result{}, fmt.Errorf("%s: %w", k.name, err)
		}
		if !stored {
			res.Unstored = append(res.Unstored, k.handle)
		} else if _, got, err := p.public(k.handle); err != nil {
			return Result{}, fmt.Errorf("%s: %w", k.name, err)
		} else if !bytes.Equal(got, ek.Name) {
			return Result{}, fmt.Errorf("%s: another key is stored than was made", k.name)
		}
		if k.isEK() {
			res.EKs = append(res.EKs, ek)
		}
	}
	return res, nil
}

func (p *provisioner) startup() error {
	_, err := p.do(call{name: "TPM2_Startup", code: 0x144, params: be.AppendUint16(nil, suClear)})
	return err
}

func (p *provisioner) shutdown() error {
	_, err := p.do(call{name: "TPM2_Shutdown", code: 0x145, params: be.AppendUint16(nil, suClear)})
	return err
}

func (p *provisioner) powerCycle() error {
	if err := p.restart(); err != nil {
		return fmt.Errorf("power cycle: %w", err)
	}
	return p.startup()
}
