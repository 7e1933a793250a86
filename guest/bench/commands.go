// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"hwvtpm/guest/agent"
)

// shortCommands are those whose time is the way to the engine and back, and
// not the engine's.
var shortCommands = []string{agent.BenchGetRandom, agent.BenchPCRRead, agent.BenchPCRExtend}

// commandNames is how the report calls the agent's commands.
var commandNames = map[string]string{
	agent.BenchGetRandom:  "GetRandom(32)",
	agent.BenchPCRRead:    "PCR_Read",
	agent.BenchPCRExtend:  "PCR_Extend",
	agent.BenchSignECDSA:  "Sign, ECDSA P-256",
	agent.BenchSignRSA:    "Sign, RSA-2048",
	agent.BenchQuoteECDSA: "Quote, ECDSA P-256",
}

// benchPCR is the debug PCR.
const benchPCR = 16

// recorder keeps the last command, so that one that go-tpm built and the TPM
// accepted can be repeated byte by byte, without go-tpm in the measurement.
type recorder struct {
	transport.TPM
	last []byte
}

func (r *recorder) Send(command []byte) ([]byte, error) {
	r.last = slices.Clone(command)
	return r.TPM.Send(command)
}

// startup starts a TPM that was just powered on.
func startup(t transport.TPM) error {
	_, err := tpm2.Startup{StartupType: tpm2.TPMSUClear}.Execute(t)
	return err
}

// script is a command to repeat, and what must have run before it.
type script struct {
	name    string
	prepare [][]byte // in order; the object made last is used by command
	command []byte
	cleanup [][]byte
}

// scripts executes each of the commands once on t and returns them as bytes.
// They hold for any TPM without transient objects, since handles are given out
// from the first one up.
func scripts(t transport.TPM, names []string) ([]script, error) {
	var all []script
	for _, name := range names {
		s, err := newScript(t, name)
		if err != nil {
			return nil, fmt.Errorf("bench: %s: %w", name, err)
		}
		all = append(all, s)
	}
	return all, nil
}

func newScript(t transport.TPM, name string) (script, error) {
	r := &recorder{TPM: t}
	s := script{name: name}
	digest := sha256.Sum256([]byte(name))
	var err error
	switch name {
	case agent.BenchGetRandom:
		_, err = tpm2.GetRandom{BytesRequested: 32}.Execute(r)
	case agent.BenchPCRRead:
		_, err = tpm2.PCRRead{PCRSelectionIn: pcrs(benchPCR)}.Execute(r)
	case agent.BenchPCRExtend:
		err = extend(r, digest[:])
	case agent.BenchSignECDSA:
		return s.withKey(r, ecdsaKey, func(k tpm2.AuthHandle) error { return sign(r, k, digest[:]) })
	case agent.BenchSignRSA:
		return s.withKey(r, rsaKey, func(k tpm2.AuthHandle) error { return sign(r, k, digest[:]) })
	case agent.BenchQuoteECDSA:
		return s.withKey(r, ecdsaKey, func(k tpm2.AuthHandle) error { return quote(r, k, digest[:]) })
	default:
		err = fmt.Errorf("no such command")
	}
	s.command = r.last
	return s, err
}

// withKey completes a script whose command uses a transient key.
func (s script) withKey(r *recorder, template tpm2.TPMTPublic, use func(tpm2.AuthHandle) error) (script, error) {
	rsp, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHNull, Auth: tpm2.PasswordAuth(nil)},
		InPublic:      tpm2.New2B(template),
	}.Execute(r)
	if err != nil {
		return s, err
	}
	s.prepare = append(s.prepare, r.last)
	if err := use(tpm2.AuthHandle{Handle: rsp.ObjectHandle, Name: rsp.Name, Auth: tpm2.PasswordAuth(nil)}); err != nil {
		return s, err
	}
	s.command = r.last
	_, err = tpm2.FlushContext{FlushHandle: rsp.ObjectHandle}.Execute(r)
	s.cleanup = append(s.cleanup, r.last)
	return s, err
}

func pcrs(list ...uint) tpm2.TPMLPCRSelection {
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{
		Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(list...),
	}}}
}

func extend(t transport.TPM, digest []byte) error {
	_, err := tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: benchPCR, Auth: tpm2.PasswordAuth(nil)},
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
		InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		PCRSelect:      pcrs(0, 1, 2, 3, 4, 5, 6, 7),
	}.Execute(t)
	return err
}

// checkResponse is nil if resp is the response of a command that succeeded.
func checkResponse(resp []byte) error {
	if len(resp) < 10 { // TCG Part 3, 5.2: tag, size, response code
		return fmt.Errorf("bench: TPM response of %d bytes", len(resp))
	}
	if rc := binary.BigEndian.Uint32(resp[6:]); rc != 0 {
		return fmt.Errorf("bench: TPM response code %#x", rc)
	}
	return nil
}
