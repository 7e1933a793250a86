// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
)

// session is a TPM that is worked on.
type session struct {
	ctx  context.Context
	slot coproc.Slot
	resp [coproc.MaxTransfer]byte
}

// begin power cycles the TPM and starts it up. The run is nobody's.
func begin(ctx context.Context, slot coproc.Slot) (*session, error) {
	s := &session{ctx: ctx, slot: slot}
	return s, s.cycle()
}

// cycle is a loss of power, after TPM2_Shutdown, and TPM2_Startup(CLEAR).
func (s *session) cycle() error {
	var run coproc.RunID
	if _, err := rand.Read(run[:]); err != nil {
		return err
	}
	if _, err := s.slot.PowerOn(s.ctx, run); err != nil {
		return err
	}
	if _, err := (tpm2.Startup{StartupType: tpm2.TPMSUClear}).Execute(s); err != nil {
		return fmt.Errorf("TPM2_Startup: %w", err)
	}
	return nil
}

// end shuts the TPM down in order.
func (s *session) end() error {
	_, err := tpm2.Shutdown{ShutdownType: tpm2.TPMSUClear}.Execute(s)
	return err
}

// Send implements go-tpm's transport.TPM.
func (s *session) Send(cmd []byte) ([]byte, error) {
	n, err := s.slot.Execute(s.ctx, coproc.Command{Bytes: cmd}, s.resp[:])
	if err != nil {
		return nil, err
	}
	return bytes.Clone(s.resp[:n]), nil
}

// provision makes a new TPM's banks and keys. coprocd's card does the same for a
// slot.
func provision(ctx context.Context, slot coproc.Slot, n newTPM) error {
	s, err := begin(ctx, slot)
	if err != nil {
		return err
	}
	if err := s.allocate(n.banks); err != nil {
		return err
	}
	for _, k := range tcgKeys {
		if n.keys&k.key == 0 {
			continue
		}
		if err := s.persist(k); err != nil {
			return fmt.Errorf("key at %#x: %w", uint32(k.handle), err)
		}
	}
	return s.end()
}

// tcgKey is a key at the place where the TCG's guidance has it (TPM v2.0
// Provisioning Guidance, 7.8; EK Credential Profile, 2.2).
type tcgKey struct {
	key       abi.Keys
	hierarchy tpm2.TPMHandle
	handle    tpm2.TPMHandle
	template  tpm2.TPMTPublic
}

var tcgKeys = []tcgKey{
	{abi.KeyRSAEK, tpm2.TPMRHEndorsement, 0x81010001, tpm2.RSAEKTemplate},
	{abi.KeyP256EK, tpm2.TPMRHEndorsement, 0x8101000a, tpm2.ECCEKTemplate},
	{abi.KeyP384EK, tpm2.TPMRHEndorsement, 0x81010016, p384EK()},
	{abi.KeySRK, tpm2.TPMRHOwner, 0x81000001, tpm2.RSASRKTemplate},
}

// p384EK is template H-3 of the EK Credential Profile, B.4.
func p384EK() tpm2.TPMTPublic {
	// PolicyB for SHA-384: TPM2_PolicySecret(TPM_RH_ENDORSEMENT), or what
	// index 0x01c07f02 says.
	policy := []byte{
		0xb2, 0x6e, 0x7d, 0x28, 0xd1, 0x1a, 0x50, 0xbc, 0x53, 0xd8, 0x82, 0xbc, 0xf5, 0xfd, 0x3a, 0x1a,
		0x07, 0x41, 0x48, 0xbb, 0x35, 0xd3, 0xb4, 0xe4, 0xcb, 0x1c, 0x0a, 0xd9, 0xbd, 0xe4, 0x19, 0xca,
		0xcb, 0x47, 0xba, 0x09, 0x69, 0x96, 0x46, 0x15, 0x0f, 0x9f, 0xc0, 0x00, 0xf3, 0xf8, 0x0e, 0x12,
	}
	return tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgECC,
		NameAlg: tpm2.TPMAlgSHA384,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true,
			UserWithAuth: true, AdminWithPolicy: true, Restricted: true, Decrypt: true,
		},
		AuthPolicy: tpm2.TPM2BDigest{Buffer: policy},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Symmetric: tpm2.TPMTSymDefObject{
				Algorithm: tpm2.TPMAlgAES,
				KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, tpm2.TPMKeyBits(256)),
				Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
			},
			CurveID: tpm2.TPMECCNistP384,
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{}),
	}
}

// persist makes a primary key and keeps it at its handle.
func (s *session) persist(k tcgKey) error {
	key, err := tpm2.CreatePrimary{PrimaryHandle: k.hierarchy, InPublic: tpm2.New2B(k.template)}.Execute(s)
	if err != nil {
		return fmt.Errorf("TPM2_CreatePrimary: %w", err)
	}
	_, err = tpm2.EvictControl{
		Auth:             tpm2.TPMRHOwner,
		ObjectHandle:     &tpm2.NamedHandle{Handle: key.ObjectHandle, Name: key.Name},
		PersistentHandle: k.handle,
	}.Execute(s)
	_, flushErr := tpm2.FlushContext{FlushHandle: key.ObjectHandle}.Execute(s)
	return errors.Join(err, flushErr)
}

// bankAlgs are the banks with their algorithms.
var bankAlgs = []struct {
	bank abi.Banks
	alg  tpm2.TPMAlgID
}{
	{abi.BankSHA1, tpm2.TPMAlgSHA1}, {abi.BankSHA256, tpm2.TPMAlgSHA256},
	{abi.BankSHA384, tpm2.TPMAlgSHA384}, {abi.BankSHA512, tpm2.TPMAlgSHA512},
}

// allocate chooses the PCR banks by TPM2_PCR_Allocate (Part 3, 22.5), which holds
// from the next power cycle on, and does that.
func (s *session) allocate(banks abi.Banks) error {
	const pcrAllocate = 0x12b
	body := binary.BigEndian.AppendUint32(nil, uint32(tpm2.TPMRHPlatform))
	body = binary.BigEndian.AppendUint32(body, 9)        // of the session that follows:
	body = append(body, 0x40, 0, 0, 0x09, 0, 0, 0, 0, 0) // an empty password
	body = binary.BigEndian.AppendUint32(body, uint32(len(bankAlgs)))
	for _, b := range bankAlgs {
		pcrs := byte(0)
		if banks&b.bank != 0 {
			pcrs = 0xff
		}
		body = binary.BigEndian.AppendUint16(body, uint16(b.alg))
		body = append(body, 3, pcrs, pcrs, pcrs)
	}
	cmd := []byte{0x80, 0x02} // TPM_ST_SESSIONS
	cmd = binary.BigEndian.AppendUint32(cmd, uint32(10+len(body)))
	cmd = binary.BigEndian.AppendUint32(cmd, pcrAllocate)
	resp, err := s.Send(append(cmd, body...))
	switch {
	case err != nil:
		return err
	case len(resp) < 10 || binary.BigEndian.Uint32(resp[6:]) != 0:
		return fmt.Errorf("TPM2_PCR_Allocate: response %x", resp)
	case len(resp) < 15 || resp[14] != 1: // allocationSuccess, behind the size of the parameters
		return fmt.Errorf("TPM2_PCR_Allocate refuses the banks %s", banks)
	}
	if err := s.end(); err != nil {
		return err
	}
	return s.cycle()
}
