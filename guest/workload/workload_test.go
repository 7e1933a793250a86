// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-tpm/tpm2"
)

// fakeTPM answers each command with the next response; the last one stays.
type fakeTPM struct {
	responses [][]byte
	commands  [][]byte
}

func (f *fakeTPM) Send(command []byte) ([]byte, error) {
	f.commands = append(f.commands, slices.Clone(command))
	r := f.responses[0]
	if len(f.responses) > 1 {
		f.responses = f.responses[1:]
	}
	return r, nil
}

// codes are the command codes that it was sent.
func (f *fakeTPM) codes() []tpm2.TPMCC {
	var all []tpm2.TPMCC
	for _, c := range f.commands {
		all = append(all, tpm2.TPMCC(binary.BigEndian.Uint32(c[6:])))
	}
	return all
}

// response is a TPM response without sessions.
func response(rc uint32, body ...byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(tpm2.TPMSTNoSessions))
	b = binary.BigEndian.AppendUint32(b, uint32(headerSize+len(body)))
	b = binary.BigEndian.AppendUint32(b, rc)
	return append(b, body...)
}

// withPassword is a response to a command with one password session.
func withPassword(handle, params []byte) []byte {
	body := slices.Clone(handle)
	body = binary.BigEndian.AppendUint32(body, uint32(len(params)))
	body = append(body, params...)
	body = append(body, 0, 0, 1, 0, 0) // no nonce, continueSession, no HMAC
	resp := response(0, body...)
	binary.BigEndian.PutUint16(resp, uint16(tpm2.TPMSTSessions))
	return resp
}

var keyHandle = []byte{0x80, 0, 0, 7}

// created is the response of TPM2_CreatePrimary.
func created() []byte {
	return withPassword(keyHandle, slices.Concat(
		tpm2.Marshal(tpm2.New2B(ecdsaKey)),
		[]byte{0, 0}, // no creation data
		[]byte{0, 0}, // no digest of it
		tpm2.Marshal(tpm2.TPMTTKCreation{Tag: tpm2.TPMSTCreation, Hierarchy: tpm2.TPMRHNull}),
		tpm2.Marshal(tpm2.TPM2BName{Buffer: []byte{0, 11, 1, 2, 3}}),
	))
}

// signed is the response of TPM2_Sign.
func signed() []byte {
	return withPassword(nil, tpm2.Marshal(tpm2.TPMTSignature{
		SigAlg: tpm2.TPMAlgECDSA,
		Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgECDSA, &tpm2.TPMSSignatureECC{
			Hash: tpm2.TPMAlgSHA256, SignatureR: tpm2.TPM2BECCParameter{Buffer: []byte{1}}, SignatureS: tpm2.TPM2BECCParameter{Buffer: []byte{2}},
		}),
	}))
}

var flushed = slices.Concat([]byte{0x80, 1, 0, 0, 0, 14, 0, 0, 1, 0x65}, keyHandle)

func TestScriptWithoutAKey(t *testing.T) {
	tpm := &fakeTPM{responses: [][]byte{response(0, 0, 2, 0xaa, 0xbb)}}
	s, err := New(tpm, GetRandom)
	if err != nil {
		t.Fatal(err)
	}
	want := Script{Name: GetRandom, Command: []byte{0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x7b, 0, 32}}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Errorf("New() (-want +got):\n%s", diff)
	}
}

func TestScriptWithAKeyLeavesItPrepared(t *testing.T) {
	tpm := &fakeTPM{responses: [][]byte{created(), signed()}}
	s, err := New(tpm, SignECDSA)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]tpm2.TPMCC{tpm2.TPMCCCreatePrimary, tpm2.TPMCCSign}, tpm.codes()); diff != "" {
		t.Fatalf("commands sent (-want +got):\n%s", diff)
	}
	want := Script{Name: SignECDSA, Prepare: tpm.commands[:1], Command: tpm.commands[1], Cleanup: [][]byte{flushed}}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Errorf("New() (-want +got):\n%s", diff)
	}
	if !bytes.Equal(s.Command[headerSize:headerSize+4], keyHandle) {
		t.Errorf("the command % x does not use the key", s.Command)
	}
}

func TestFailedScriptLeavesNoKey(t *testing.T) {
	tpm := &fakeTPM{responses: [][]byte{created(), response(0x922), response(0)}}
	if _, err := New(tpm, QuoteECDSA); !errors.Is(err, tpm2.TPMRCRetry) {
		t.Errorf("New() = %v, want the TPM's error", err)
	}
	if n := len(tpm.commands); n != 3 || !bytes.Equal(tpm.commands[2], flushed) {
		t.Errorf("commands sent: %v, want the key flushed at the end", tpm.codes())
	}
}

func TestNoScript(t *testing.T) {
	tpm := &fakeTPM{responses: [][]byte{response(0x101)}}
	for _, name := range append([]string{"nonsense"}, Commands...) {
		if s, err := New(tpm, name); err == nil || s.Name != "" {
			t.Errorf("New(%s) = %+v, %v, want an error", name, s, err)
		}
	}
	if len(tpm.commands) != len(Commands) {
		t.Errorf("%d commands sent, want one of each name and no cleanup", len(tpm.commands))
	}
}

func TestMeasureRepeatsTheSameBytes(t *testing.T) {
	tpm := &fakeTPM{responses: [][]byte{response(0, 1, 2, 3)}}
	samples, err := Measure(t.Context(), tpm.Send, []byte("command"), 3, 7)
	if err != nil || len(samples) != 7 {
		t.Fatalf("Measure() = %d samples, %v", len(samples), err)
	}
	if len(tpm.commands) != 3+7 {
		t.Errorf("%d commands, want 10", len(tpm.commands))
	}
	for i, c := range tpm.commands {
		if string(c) != "command" {
			t.Errorf("command %d = %q", i, c)
		}
	}
}

func TestMeasureStopsAtAnError(t *testing.T) {
	tpm := &fakeTPM{responses: [][]byte{response(0), response(0), response(0x922)}}
	samples, err := Measure(t.Context(), tpm.Send, []byte("x"), 0, 10)
	if err == nil || samples != nil || len(tpm.commands) != 3 {
		t.Errorf("Measure() = %v, %v after %d commands", samples, err, len(tpm.commands))
	}
	broken := errors.New("broken")
	send := func([]byte) ([]byte, error) { return nil, broken }
	if _, err := Measure(t.Context(), send, []byte("x"), 0, 10); !errors.Is(err, broken) {
		t.Errorf("Measure() = %v, want the error of send", err)
	}
}

func TestMeasureEndsWithItsContext(t *testing.T) {
	tpm := &fakeTPM{responses: [][]byte{response(0)}}
	ctx, cancel := context.WithCancel(t.Context())
	send := func(c []byte) ([]byte, error) {
		if len(tpm.commands) == 4 {
			cancel()
		}
		return tpm.Send(c)
	}
	if _, err := Measure(ctx, send, []byte("x"), 1, 1000); !errors.Is(err, context.Canceled) || len(tpm.commands) != 5 {
		t.Errorf("Measure() = %v after %d commands, want %v after 5", err, len(tpm.commands), context.Canceled)
	}
}

func TestSendAllStopsAtTheFirstFailure(t *testing.T) {
	tpm := &fakeTPM{responses: [][]byte{response(0), response(0x922)}}
	if err := SendAll(tpm, [][]byte{[]byte("a"), []byte("b"), []byte("c")}); err == nil || len(tpm.commands) != 2 {
		t.Errorf("SendAll() = %v after %d commands", err, len(tpm.commands))
	}
}

func TestCheckResponse(t *testing.T) {
	for name, tt := range map[string]struct {
		resp []byte
		ok   bool
	}{
		"success": {response(0, 1, 2, 3), true},
		"error":   {response(0x101), false},
		"short":   {response(0)[:9], false},
		"empty":   {nil, false},
	} {
		if err := CheckResponse(tt.resp); (err == nil) != tt.ok {
			t.Errorf("%s: CheckResponse() = %v", name, err)
		}
	}
}
