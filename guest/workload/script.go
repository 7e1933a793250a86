// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// The names of the commands.
const (
	GetRandom  = "getrandom"   // TPM2_GetRandom, 32 bytes
	PCRRead    = "pcrread"     // TPM2_PCR_Read, PCR 16, SHA-256
	PCRExtend  = "pcrextend"   // TPM2_PCR_Extend, PCR 16, SHA-256
	SignECDSA  = "sign-ecdsa"  // TPM2_Sign, ECDSA P-256
	SignRSA    = "sign-rsa"    // TPM2_Sign, RSASSA 2048
	QuoteECDSA = "quote-ecdsa" // TPM2_Quote, ECDSA P-256, PCR 0-7
)

// Commands lists them all in the order in which they are measured.
var Commands = []string{GetRandom, PCRRead, PCRExtend, SignECDSA, SignRSA, QuoteECDSA}

// debugPCR is the PCR that any locality may reset.
const debugPCR = 16

// Script is a command to repeat, with what must run before and after it. All of
// it is whole TPM commands (TCG Part 3, 5), in order.
type Script struct {
	Name    string
	Prepare [][]byte // makes what Command uses
	Command []byte
	Cleanup [][]byte // removes what Prepare made
}

// New makes the script of a command of this package by executing it once on t.
// The TPM is left prepared: the caller sends Cleanup when it is done. After an
// error there is nothing to clean up.
func New(t transport.TPM, name string) (Script, error) {
	s, err := newScript(&Recorder{TPM: t}, name)
	if err != nil {
		return Script{}, fmt.Errorf("workload: %s: %w", name, errors.Join(err, SendAll(t, s.Cleanup)))
	}
	return s, nil
}

func newScript(r *Recorder, name string) (Script, error) {
	s := Script{Name: name}
	digest := sha256.Sum256([]byte(name))
	var err error
	switch name {
	case GetRandom:
		_, err = tpm2.GetRandom{BytesRequested: 32}.Execute(r)
	case PCRRead:
		_, err = tpm2.PCRRead{PCRSelectionIn: pcrs(debugPCR)}.Execute(r)
	case PCRExtend:
		err = extend(r, digest[:])
	case SignECDSA:
		err = s.withKey(r, ecdsaKey, sign, digest[:])
	case SignRSA:
		err = s.withKey(r, rsaKey, sign, digest[:])
	case QuoteECDSA:
		err = s.withKey(r, ecdsaKey, quote, digest[:])
	default:
		err = errors.New("no such command")
	}
	s.Command = r.Last
	return s, err
}

// withKey makes the transient key that the script's command uses, and executes
// that.
func (s *Script) withKey(r *Recorder, template tpm2.TPMTPublic, use func(transport.TPM, tpm2.AuthHandle, []byte) error, digest []byte) error {
	rsp, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHNull, Auth: tpm2.PasswordAuth(nil)},
		InPublic:      tpm2.New2B(template),
	}.Execute(r)
	if err != nil {
		return err
	}
	s.Prepare = append(s.Prepare, r.Last)
	s.Cleanup = append(s.Cleanup, flushContext(rsp.ObjectHandle))
	return use(r, tpm2.AuthHandle{Handle: rsp.ObjectHandle, Name: rsp.Name, Auth: tpm2.PasswordAuth(nil)}, digest)
}

// flushContext is TPM2_FlushContext (TCG Part 3, 28.4), which go-tpm can only
// execute: it is wanted before it is time for it.
func flushContext(handle tpm2.TPMHandle) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(tpm2.TPMSTNoSessions))
	b = binary.BigEndian.AppendUint32(b, 14) // its own size
	b = binary.BigEndian.AppendUint32(b, uint32(tpm2.TPMCCFlushContext))
	return binary.BigEndian.AppendUint32(b, uint32(handle))
}

func pcrs(list ...uint) tpm2.TPMLPCRSelection {
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{
		Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(list...),
	}}}
}

func extend(t transport.TPM, digest []byte) error {
	_, err := tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: debugPCR, Auth: tpm2.PasswordAuth(nil)},
		Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: digest}}},
	}.Execute(t)
	return err
}

func sign(t transport.TPM, key tpm2.AuthHandle, digest []byte) error {
	_, err := tpm2.Sign{
		KeyHandle:  key,
		Digest:     tpm2.TPM2BDigest{Buffer: digest},
		InScheme:   tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull}, // the key's own
		Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
	}.Execute(t)
	return err
}

func quote(t transport.TPM, key tpm2.AuthHandle, nonce []byte) error {
	_, err := tpm2.Quote{
		SignHandle:     key,
		QualifyingData: tpm2.TPM2BData{Buffer: nonce},
		InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull}, // the key's own
		PCRSelect:      pcrs(0, 1, 2, 3, 4, 5, 6, 7),
	}.Execute(t)
	return err
}

// Recorder passes commands on and keeps the last one, so that one that go-tpm
// built and the TPM accepted can be repeated byte by byte.
type Recorder struct {
	transport.TPM
	Last []byte // not changed by later commands
}

// Send executes a command.
func (r *Recorder) Send(command []byte) ([]byte, error) {
	r.Last = slices.Clone(command)
	return r.TPM.Send(command)
}
