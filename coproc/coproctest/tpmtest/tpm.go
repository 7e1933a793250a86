// SPDX-License-Identifier: Apache-2.0

package tpmtest

import (
	"crypto/sha256"
	"encoding/binary"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// Send runs one raw command and gives the raw response.
type Send func(cmd []byte) ([]byte, error)

// TPM is a TPM under test.
type TPM struct {
	t    testing.TB
	send Send
}

var _ transport.TPM = (*TPM)(nil)

// New gives the TPM behind send.
func New(t testing.TB, send Send) *TPM { return &TPM{t: t, send: send} }

// Send implements go-tpm's transport.
func (p *TPM) Send(cmd []byte) ([]byte, error) { return p.send(cmd) }

// Code runs a raw command and gives the response code.
func (p *TPM) Code(cmd []byte) tpm2.TPMRC {
	p.t.Helper()
	resp, err := p.send(cmd)
	if err != nil {
		p.t.Fatalf("send %x: %v", cmd, err)
	}
	if len(resp) < 10 || binary.BigEndian.Uint32(resp[2:]) != uint32(len(resp)) {
		p.t.Fatalf("send %x: response %x is no TPM response", cmd, resp)
	}
	return tpm2.TPMRC(binary.BigEndian.Uint32(resp[6:]))
}

// ok fails the test if err is not nil.
func (p *TPM) ok(what string, err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatalf("%s: %v", what, err)
	}
}

// Startup sends TPM2_Startup(CLEAR).
func (p *TPM) Startup() {
	p.t.Helper()
	_, err := tpm2.Startup{StartupType: tpm2.TPMSUClear}.Execute(p)
	p.ok("Startup", err)
}

// Random gets n random bytes.
func (p *TPM) Random(n int) []byte {
	p.t.Helper()
	r, err := tpm2.GetRandom{BytesRequested: uint16(n)}.Execute(p)
	p.ok("GetRandom", err)
	return r.RandomBytes.Buffer
}

// Extend extends the SHA-256 bank of a PCR with the hash of event.
func (p *TPM) Extend(pcr int, event string) {
	p.t.Helper()
	_, err := ExtendCommand(pcr, event).Execute(p)
	p.ok("PCR_Extend", err)
}

// ExtendCommand is the command that Extend sends.
func ExtendCommand(pcr int, event string) tpm2.PCRExtend {
	sum := sha256.Sum256([]byte(event))
	return tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(pcr), Auth: tpm2.PasswordAuth(nil)},
		Digests: tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{
			{HashAlg: tpm2.TPMAlgSHA256, Digest: sum[:]},
		}},
	}
}

// Digest is a SHA-256 digest.
type Digest = [sha256.Size]byte

// Extended gives what the PCR value d becomes by Extend(event).
func Extended(d Digest, event string) Digest {
	sum := sha256.Sum256([]byte(event))
	return sha256.Sum256(append(d[:], sum[:]...))
}

// PCR reads the SHA-256 bank of a PCR.
func (p *TPM) PCR(pcr int) Digest {
	p.t.Helper()
	r, err := tpm2.PCRRead{PCRSelectionIn: tpm2.TPMLPCRSelection{
		PCRSelections: []tpm2.TPMSPCRSelection{{
			Hash:      tpm2.TPMAlgSHA256,
			PCRSelect: tpm2.PCClientCompatible.PCRs(uint(pcr)),
		}},
	}}.Execute(p)
	p.ok("PCR_Read", err)
	if len(r.PCRValues.Digests) != 1 {
		p.t.Fatalf("PCR_Read: %d digests", len(r.PCRValues.Digests))
	}
	return Digest(r.PCRValues.Digests[0].Buffer)
}

// Clock gives TPMS_CLOCK_INFO.clock in milliseconds, and reset count.
func (p *TPM) Clock() (clock uint64, resets uint32) {
	p.t.Helper()
	// go-tpm has no TPM2_ReadClock call: Part 3, 29.1.
	resp, err := p.send([]byte{0x80, 0x01, 0, 0, 0, 10, 0, 0, 0x01, 0x81})
	if err != nil || len(resp) < 30 {
		p.t.Fatalf("ReadClock: %x, %v", resp, err)
	}
	return binary.BigEndian.Uint64(resp[18:]), binary.BigEndian.Uint32(resp[26:])
}

// Property reads one TPM_PT.
func (p *TPM) Property(pt tpm2.TPMPT) uint32 {
	p.t.Helper()
	r, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(pt), PropertyCount: 1}.Execute(p)
	p.ok("GetCapability", err)
	props, err := r.CapabilityData.Data.TPMProperties()
	p.ok("GetCapability", err)
	if len(props.TPMProperty) != 1 || props.TPMProperty[0].Property != pt {
		p.t.Fatalf("GetCapability: property %#x is not there", pt)
	}
	return props.TPMProperty[0].Value
}
