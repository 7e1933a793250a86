// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"bytes"
	"errors"
	"fmt"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/engine"
	"hwvtpm/firmware/provision"
	"hwvtpm/firmware/sealed"
	"hwvtpm/firmware/wire"
)

// errRuns refuses new certificates while a run may go on: its exact state is bound
// to the permanent state, which they change.
var errRuns = errors.New("the machine's run may go on: shut it down in order first")

// certify has the card certify the endorsement keys of the TPM on the workbench,
// and writes the certificates.
func (b *workbench) certify(setup *wire.Setup, u *supervised, eks []provision.EK) error {
	if setup.Flags&wire.Certifies == 0 {
		return nil // a card of a version before this one
	}
	return provision.Certify(b, b.restart, eks, setup.Flags&wire.Clone != 0, u.certify)
}

// recertify writes new certificates into the slot's NV memory. The state without
// them is the slot's until the card has saved the one with them.
func (w *worker) recertify(setup *wire.Setup, u *supervised) error {
	s, err := w.open(setup, u)
	if err != nil {
		return w.refuse(err)
	}
	defer s.close()
	eks, err := s.recertify(setup, u)
	if u.broken != nil {
		return u.broken
	}
	if err != nil {
		return w.refuse(err)
	}
	return w.ready(&wire.Ready{Generation: s.state.generation, Epoch: s.epoch, EKs: provision.Names(eks)})
}

// recertify is worker.recertify for a slot that is off.
//
// The run that the state is of keeps its name, so a driver that tries to resume it
// nevertheless finds a TPM that fails, not one with fresh PCRs.
func (s *slot) recertify(setup *wire.Setup, u *supervised) ([]provision.EK, error) {
	known, err := s.recollect()
	if err == nil && known && s.flags&flagShutdown == 0 {
		err = errRuns
	}
	if err != nil {
		return nil, err
	}
	b := &workbench{tpm: s.tpm, perm: bytes.Clone(s.state.permanent)}
	defer func() { clear(b.perm) }()
	asleep, err := provision.Asleep(b, b.restart)
	if err == nil && asleep {
		err = fmt.Errorf("the machine sleeps: %w", errRuns)
	}
	if err != nil {
		return nil, err
	}
	clear(b.Stored(nil)) // as if nothing had been tried
	clear(b.perm)
	b.perm = append(b.perm[:0], s.state.permanent...)
	eks, err := provision.Identify(b, b.restart)
	if err == nil {
		err = b.certify(setup, u, eks)
	}
	b.keep()
	if err != nil {
		return nil, err
	}
	if !known {
		if err := s.freshVolatile(); err != nil {
			return nil, err
		}
	}
	next := s.state
	next.permanent, next.engine, next.origin = b.perm, engine.Version(), sealed.Fingerprint{}
	return eks, s.writeEnded(&next, &moment{seq: s.seq, run: next.run, flags: flagShutdown})
}

// certify asks the card for certificates: see wire.Certify.
func (u *supervised) certify(p *provision.Properties, has *provision.Certificates) (*provision.Certificates, error) {
	if u.broken != nil {
		return nil, u.broken
	}
	list := abi.AppendEKCertificates(nil, has.Keys)
	if len(list)+len(has.Chain) > wire.MaxBlob {
		return nil, fmt.Errorf("certificates of %d bytes do not fit the shared memory", len(list)+len(has.Chain))
	}
	copy(u.shared[wire.BlobOffset:], list)
	copy(u.shared[wire.BlobOffset+len(list):], has.Chain)
	err := wire.Send(u.fd, wire.AppendCertify(nil, &wire.Certify{
		ListLen: uint32(len(list)), ChainLen: uint32(len(has.Chain)),
		Maker: p.Maker, Firmware: p.Firmware, Level: p.Level, Revision: p.Revision,
	}))
	var give *provision.Certificates
	if err == nil {
		give, err = u.certified()
	}
	if err != nil {
		u.broken = err
	}
	return give, err
}

// certified receives what the card answers to Certify.
func (u *supervised) certified() (*provision.Certificates, error) {
	n, fds, err := wire.Receive(u.fd, u.msg[:])
	if err != nil {
		return nil, err
	}
	wire.CloseAll(fds)
	c, err := wire.ParseCertified(u.msg[:n])
	if err == nil && c.Status != abi.StatusOK {
		err = fmt.Errorf("the card does not certify: %v", c.Status)
	}
	if err != nil {
		return nil, err
	}
	b := bytes.Clone(u.shared[wire.BlobOffset:][:c.ListLen+c.ChainLen])
	keys, err := abi.ParseEKCertificates(b[:c.ListLen])
	return &provision.Certificates{Keys: keys, Chain: b[c.ListLen:]}, err
}
