// SPDX-License-Identifier: Apache-2.0

package hosttpm

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// Causes of failure beside those of package sealed.
var (
	// ErrPCRs: the host is not in the state that the key was sealed for.
	ErrPCRs = errors.New("PCRs are not as they were when the key was sealed")

	// ErrOtherTPM: another TPM, or the same one after it was cleared.
	ErrOtherTPM = errors.New("not the TPM that the key was sealed by")
)

// TPM is the host's TPM.
type TPM struct {
	Transport transport.TPM
	OwnerAuth []byte // authorization value of the owner hierarchy, mostly empty
}

// Format implements fmt.Formatter, so that no verb shows OwnerAuth.
func (t TPM) Format(f fmt.State, _ rune) { fmt.Fprint(f, "host TPM") }

const nonceSize = 32

// session starts an HMAC session, which done ends. It is not left to go-tpm: its
// sessions of one command stay in the TPM when the transport fails.
func (t TPM) session(opts ...tpm2.AuthOption) (s tpm2.Session, done func() error, err error) {
	s, done, err = tpm2.HMACSession(t.Transport, tpm2.TPMAlgSHA256, nonceSize, opts...)
	if err != nil {
		return nil, nil, fmt.Errorf("host TPM: start a session: %w", err)
	}
	return s, done, nil
}

// primary is the loaded primary storage key.
type primary struct {
	tpm    transport.TPM
	handle tpm2.TPMHandle
	name   tpm2.TPM2BName
	public tpm2.TPMTPublic
}

func (t TPM) primary() (*primary, error) {
	if bytes.IndexByte(t.OwnerAuth, 0) >= 0 {
		return nil, errors.New("host TPM: an owner authorization with a zero byte in it is not supported: choose another")
	}
	session, done, err := t.session(tpm2.Auth(t.OwnerAuth))
	if err != nil {
		return nil, err
	}
	defer done()
	rsp, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: session},
		InPublic:      tpm2.New2B(tpm2.ECCSRKTemplate),
	}.Execute(t.Transport)
	if err != nil {
		return nil, fmt.Errorf("host TPM: make the primary storage key: %w", err)
	}
	p := &primary{tpm: t.Transport, handle: rsp.ObjectHandle, name: rsp.Name}
	if err := p.check(&rsp.OutPublic); err != nil {
		p.flush()
		return nil, fmt.Errorf("host TPM: primary storage key: %w", err)
	}
	return p, nil
}

// check takes the public part, which has to be what the name says.
func (p *primary) check(public *tpm2.TPM2BPublic) error {
	contents, err := public.Contents()
	if err != nil {
		return err
	}
	name, err := tpm2.ObjectName(contents)
	if err != nil {
		return err
	}
	if !bytes.Equal(name.Buffer, p.name.Buffer) || len(name.Buffer) != nameSize {
		return errors.New("its name is not that of its public part")
	}
	p.public = *contents
	return nil
}

func (p *primary) flush() { flush(p.tpm, p.handle) }

// flush is best effort: a handle that stays is for the resource manager.
func flush(t transport.TPM, h tpm2.TPMHandle) { tpm2.FlushContext{FlushHandle: h}.Execute(t) }

func (p *primary) auth(s tpm2.Session) tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: p.handle, Name: p.name, Auth: s}
}

// Directions in which a session encrypts a command's first parameter, a response's,
// or both: a TPM refuses one that the command does not have.
var (
	inbound  = tpm2.AESEncryption(128, tpm2.EncryptIn)
	outbound = tpm2.AESEncryption(128, tpm2.EncryptOut)
	bothWays = tpm2.AESEncryption(128, tpm2.EncryptInOut)
)

// secure are the options of a session whose key nobody on the bus can know.
func (p *primary) secure(opts ...tpm2.AuthOption) []tpm2.AuthOption {
	return append(opts, tpm2.Salted(p.handle, p.public))
}
