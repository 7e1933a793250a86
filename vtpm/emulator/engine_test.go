// SPDX-License-Identifier: Apache-2.0

package emulator

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"
)

// createKey is TPM2_CreatePrimary of an RSA-2048 key under the null hierarchy.
// Each salt is another key, which takes the engine some ten milliseconds.
func createKey(salt uint32) []byte {
	unique := make([]byte, 256)
	binary.BigEndian.PutUint32(unique, salt)
	public := []byte{
		0, 1, 0, 0x0b, // RSA, name by SHA-256
		0, 3, 0, 0x72, // fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, restricted, decrypt
		0, 0, // no policy
		0, 6, 0, 128, 0, 0x43, // AES-128 CFB
		0, 0x10, 8, 0, 0, 0, 0, 0, // no scheme, 2048 bits, default exponent
		1, 0, // unique
	}
	public = append(public, unique...)
	b := order.AppendUint16(nil, 0x8002)
	b = append(b, 0, 0, 0, 0, 0, 0, 0x01, 0x31, 0x40, 0, 0, 7)
	b = append(b, 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0)
	b = append(b, 0, 4, 0, 0, 0, 0) // no password, no data
	b = order.AppendUint16(b, uint16(len(public)))
	b = append(b, public...)
	b = append(b, 0, 0, 0, 0, 0, 0) // no outside data, no PCRs
	order.PutUint32(b[2:], uint32(len(b)))
	return b
}

// A cancellation reaches the engine in the middle of a command, over both
// channels.
func TestCancelReachesTheEngine(t *testing.T) {
	p := dialPeer(t, startOurs(t))
	p.openData()
	p.result(words(cmdInit, 0))
	p.rc(startup)
	for salt := range uint32(200) {
		if _, err := p.data.Write(createKey(salt)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(salt%8) * time.Millisecond) // any moment of it
		if res := p.result(words(cmdCancelTPMCmd)); res != resOK {
			t.Fatalf("CANCEL_TPM_CMD = %#x", res)
		}
		resp := p.read(p.data)
		switch rc := codeOf(resp); rc {
		case rcCanceled:
			if rc := p.rc(selfTest); rc != 0 {
				t.Errorf("the command after a canceled one: %#x", rc)
			}
			return
		case 0:
			flush := append([]byte{0x80, 1, 0, 0, 0, 14, 0, 0, 1, 0x65}, resp[tpmHeader:tpmHeader+4]...)
			if rc := p.rc(flush); rc != 0 {
				t.Fatalf("TPM2_FlushContext: %#x", rc)
			}
		default:
			t.Fatalf("TPM2_CreatePrimary: %#x", rc)
		}
	}
	t.Error("200 cancellations had no effect")
}

// Firmware that goes on after its TPM2_Shutdown(STATE), as EDK2 does, finds its
// PCRs when the machine wakes up. After any other reset nobody does.
func TestSuspension(t *testing.T) {
	resume := tpmCommand(0x144, 0, 1)
	for name, tt := range map[string]struct {
		suspend bool
		rc      uint32
	}{
		"suspended": {true, 0},
		"reset":     {false, 0x1c4}, // TPM_RC_VALUE of parameter 1
	} {
		t.Run(name, func(t *testing.T) {
			p := dialPeer(t, startOurs(t))
			p.openData()
			p.result(words(cmdInit, 0))
			p.rc(startup)
			p.rc(extendPCR())
			if tt.suspend {
				p.rc(shutdownState)
			}
			p.rc(extendPCR())
			want := pcrValue(p.execute(readPCR))
			p.result(words(cmdStop))
			p.result(words(cmdInit, 0))
			if rc := p.rc(resume); rc != tt.rc {
				t.Fatalf("TPM2_Startup(STATE) = %#x, want %#x", rc, tt.rc)
			}
			if !tt.suspend {
				return
			}
			if got := pcrValue(p.execute(readPCR)); !bytes.Equal(got, want) {
				t.Errorf("the PCR is %x, want %x", got, want)
			}
		})
	}
}
