// SPDX-License-Identifier: Apache-2.0

package emulator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/sim"
)

// hostPCR is each of PCR 0-7 of the test's host, in SHA-256.
var hostPCR = bytes.Repeat([]byte{0xc5}, 32)

// hostSlots opens the slot of one card, as it is and with the PCRs of a host, which is
// away when a test says so.
type hostSlots struct {
	card coproc.Device
	away atomic.Bool
}

func newHostSlots(t *testing.T) *hostSlots {
	t.Helper()
	card, err := sim.Open(sim.Config{Dir: filepath.Join(t.TempDir(), "tpm"), EnginePath: built.Path(t, sim.EngineName)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { card.Close() })
	return &hostSlots{card: card}
}

func (h *hostSlots) plain(ctx context.Context) (coproc.Slot, error) {
	return h.card.OpenSlot(ctx, sim.SlotName)
}

func (h *hostSlots) mapped(ctx context.Context) (coproc.Slot, error) {
	s, err := h.plain(ctx)
	if err != nil {
		return nil, err
	}
	return coproc.WithHostPCRs(s, func(context.Context) (m coproc.PCRMap, err error) {
		err = m.SetBank(abi.BankSHA256, slices.Repeat([][]byte{hostPCR}, abi.HostPCRs))
		if h.away.Load() {
			err = errors.New("away")
		}
		return m, err
	}, nil)
}

// readPCR0 reads PCR 0 in SHA-256.
func (p *peer) readPCR0() []byte {
	p.Helper()
	return pcrValue(p.execute(tpmCommand(0x17e, 0, 0, 0, 1, 0, 0x0b, 3, 1, 0, 0)))
}

// wantHostPCRs checks that PCR 0 is the host's and that no locality changes it.
func (p *peer) wantHostPCRs(when string) {
	p.Helper()
	const rcLocality = 0x907
	for locality := byte(0); locality <= maxLocality; locality++ {
		if res := p.result(append(words(cmdSetLocality), locality, 0, 0, 0)); res != resOK {
			p.Fatalf("%s: SET_LOCALITY %d = %#x", when, locality, res)
		}
		for _, pcr := range []byte{0, 7} {
			extend := extendPCR()
			extend[tpmHeader+3] = pcr
			if rc := p.rc(extend); rc != rcLocality {
				p.Errorf("%s: PCR_Extend(%d) at locality %d = %#x", when, pcr, locality, rc)
			}
		}
	}
	if got := p.readPCR0(); !bytes.Equal(got, hostPCR) {
		p.Errorf("%s: PCR 0 = %x, want %x", when, got, hostPCR)
	}
}

// hash plays what a processor does at a dynamic launch, or its firmware at a reset:
// _TPM_Hash_Start, _Data and _End. It gives the last one's result.
func (p *peer) hash() (res result) {
	p.Helper()
	for _, r := range [][]byte{words(cmdHashStart), hashRequest("data"), words(cmdHashEnd)} {
		res = p.result(r)
	}
	return res
}

// TestMappedByEveryDoor: nothing that QEMU or its guest can do over this face changes
// the host's PCRs, at any time of the TPM's life.
func TestMappedByEveryDoor(t *testing.T) {
	h := newHostSlots(t)
	p := startedPeer(t, NewHolder(h.mapped))
	for _, tc := range []struct {
		flags    uint32
		locality byte
		early    bool // hash signals before TPM2_Startup, as for an H-CRTM
	}{
		{0, 0, false}, {initDeleteVolatile, 0, true}, {0, 3, true}, {initDeleteVolatile, 3, false}, {^uint32(0), 0, true},
	} {
		name := fmt.Sprintf("INIT %#x, Startup at locality %d", tc.flags, tc.locality)
		if res := p.result(words(cmdInit, tc.flags)); res != resOK {
			t.Fatalf("%s: %#x", name, res)
		}
		if tc.early {
			if res := p.hash(); res != resBadOrdinal {
				t.Errorf("%s: a hash sequence before Startup = %#x, want %#x", name, res, resBadOrdinal)
			}
		}
		p.result(append(words(cmdSetLocality), tc.locality, 0, 0, 0))
		if rc := p.rc(startup); rc != 0 {
			t.Fatalf("%s: TPM2_Startup = %#x", name, rc)
		}
		p.wantHostPCRs(name)
		if res := p.hash(); res != resOK {
			t.Errorf("%s: a hash sequence after Startup = %#x", name, res)
		}
		p.result(append(words(cmdResetTPMEstablished), 3, 0, 0, 0))
		p.wantHostPCRs(name + ", after hash signals")
		p.rc(shutdownState)
		p.result(words(cmdStop))
		p.result(words(cmdInit, 0))
		p.result(append(words(cmdSetLocality), tc.locality, 0, 0, 0))
		if rc := p.rc(tpmCommand(0x144, 0, 1)); rc != 0 {
			t.Fatalf("%s: TPM2_Startup(STATE) = %#x", name, rc)
		}
		p.wantHostPCRs(name + ", after a sleep")
	}
}

// TestHostAwayFromEmulator: INIT goes well, since QEMU would end a machine that is
// reset; the TPM fails until the next INIT when the host is back.
func TestHostAwayFromEmulator(t *testing.T) {
	h := newHostSlots(t)
	p := startedPeer(t, NewHolder(h.mapped))
	for range 2 {
		h.away.Store(true)
		if res := p.result(words(cmdInit, 0)); res != resOK {
			t.Fatalf("INIT without the host = %#x", res)
		}
		if rc := p.rc(startup); rc != rcFailure {
			t.Errorf("TPM2_Startup without the host = %#x", rc)
		}
		h.away.Store(false)
		if rc := p.rc(startup); rc != rcFailure {
			t.Errorf("TPM2_Startup when it is back = %#x, want %#x until INIT", rc, rcFailure)
		}
		p.result(words(cmdStop))
		p.result(words(cmdInit, 0))
		if rc := p.rc(startup); rc != 0 {
			t.Fatalf("TPM2_Startup after INIT = %#x", rc)
		}
		p.wantHostPCRs("when it is back")
		p.result(words(cmdStop))
	}
}

// carry brings the state of one machine to another server, up to its INIT.
func carry(t *testing.T, src, dst *peer) result {
	t.Helper()
	dst.result(words(cmdStop))
	for _, kind := range []BlobKind{BlobPermanent, BlobVolatile} {
		head, blob := readBlob(src, kind, 0)
		if res := dst.result(append(words(cmdSetStateBlob, head[1], uint32(kind), uint32(len(blob))), blob...)); res != resOK {
			t.Fatalf("SET_STATEBLOB %d = %#x", kind, res)
		}
	}
	readBlob(src, blobSaveState, 0)
	return dst.result(words(cmdInit, initDeleteVolatile))
}

// TestStatesWithAndWithoutMap: a state without a map gets one where the host's PCRs are
// shown, and one with a map keeps it where they are not. Where the host cannot be
// asked a machine does not arrive.
func TestStatesWithAndWithoutMap(t *testing.T) {
	h := newHostSlots(t)
	off := startedPeer(t, NewHolder(h.plain))
	off.result(words(cmdInit, 0))
	off.rc(startup)
	extend := extendPCR()
	extend[tpmHeader+3] = 0
	if rc := off.rc(extend); rc != 0 {
		t.Fatalf("PCR_Extend(0) without a map = %#x", rc)
	}
	own := off.readPCR0()

	on := startedPeer(t, NewHolder(h.mapped))
	h.away.Store(true)
	if res := carry(t, off, on); res != resFail {
		t.Errorf("INIT where the host is away = %#x, want %#x", res, resFail)
	}
	on.hangUp()
	if got := off.readPCR0(); !bytes.Equal(got, own) {
		t.Errorf("PCR 0 back at the source = %x, want %x", got, own)
	}

	h.away.Store(false)
	on = startedPeer(t, NewHolder(h.mapped))
	if res := carry(t, off, on); res != resOK {
		t.Fatalf("INIT where PCRs are mapped = %#x", res)
	}
	on.wantHostPCRs("of a state without a map")
	off.hangUp()

	off = startedPeer(t, NewHolder(h.plain))
	if res := carry(t, on, off); res != resOK {
		t.Fatalf("INIT where PCRs are not mapped = %#x", res)
	}
	off.wantHostPCRs("of a state with a map")
	on.hangUp()
}
