// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/coproctest/tpmtest"
	"hwvtpm/firmware/pcrmap"
)

// hostMap gives the PCRs of a host, in two banks.
func hostMap(host byte) (m abi.PCRMap) {
	for _, bank := range []abi.Banks{abi.BankSHA256, abi.BankSHA384} {
		var values [][]byte
		for pcr := range abi.HostPCRs {
			values = append(values, bytes.Repeat([]byte{host<<4 | byte(pcr)}, len(abi.UnmappedPCR(bank))))
		}
		if err := m.SetBank(bank, values); err != nil {
			panic(err)
		}
	}
	return m
}

// mapPCRs maps, over crashes, as a driver does.
func (r *rig) mapPCRs(m abi.PCRMap) {
	r.t.Helper()
	if err := r.survive(func() error { return r.slot.mapPCRs(&m) }); err != nil {
		r.t.Fatalf("map PCRs: %v", err)
	}
}

// checkPCRs checks that PCR 0-7 are those of a map, or else zero.
func (r *rig) checkPCRs(when string, m *abi.PCRMap) {
	r.t.Helper()
	for pcr := range abi.HostPCRs {
		want := make([]byte, 32)
		if m.Banks() != 0 {
			want = pcrmap.Wanted(m, abi.BankSHA256, pcr)
		}
		if got := r.tpm.PCR(pcr); !bytes.Equal(got[:], want) {
			r.t.Fatalf("%s: PCR %d = %x, want %x", when, pcr, got, want)
		}
	}
}

// startup sends TPM2_Startup of either kind.
func (r *rig) startup(kind tpm2.TPMSU) {
	r.t.Helper()
	if _, err := (tpm2.Startup{StartupType: kind}).Execute(r.tpm); err != nil {
		r.t.Fatalf("Startup: %v", err)
	}
}

// mappedGuest is the life of a guest whose PCR 0-7 are a host's.
func mappedGuest(t *testing.T, r *rig) {
	here, there := hostMap(1), hostMap(2)
	r.powerOn([abi.RunIDSize]byte{1})
	r.mapPCRs(here)
	r.tpm.Startup()
	r.checkPCRs("after Startup", &here)
	r.mapPCRs(here)
	if _, err := tpmtest.ExtendCommand(0, "mine").Execute(r.tpm); !errors.Is(err, tpm2.TPMRCLocality) {
		t.Fatalf("PCR_Extend(0): %v, want TPM_RC_LOCALITY", err)
	}
	r.tpm.Extend(8, "a boot loader")
	pcr8 := r.tpm.PCR(8)
	srk := r.tpm.CreateSRK()
	session := r.tpm.HMACSession()
	if err := r.tpm.UseSession(session, srk); err != nil {
		t.Fatal(err)
	}
	if _, err := (tpm2.Shutdown{ShutdownType: tpm2.TPMSUState}).Execute(r.tpm); err != nil {
		t.Fatal(err)
	}
	r.reset()
	r.startup(tpm2.TPMSUState)
	r.checkPCRs("after a sleep", &here)
	if got := r.tpm.PCR(8); got != pcr8 {
		t.Fatalf("PCR 8 after a sleep = %x, want %x", got, pcr8)
	}
	r.reset()
	r.tpm.Startup()
	r.checkPCRs("after a reset", &here)
	if _, err := (tpm2.Shutdown{ShutdownType: tpm2.TPMSUState}).Execute(r.tpm); err != nil {
		t.Fatal(err)
	}
	r.powerOn([abi.RunIDSize]byte{2}) // hibernated, and wakes up on another host
	r.mapPCRs(there)
	r.startup(tpm2.TPMSUState)
	r.checkPCRs("after hibernation", &there)
	r.powerOn([abi.RunIDSize]byte{3})
	r.tpm.Startup()
	r.checkPCRs("in a run without a map", &abi.PCRMap{})
	r.tpm.Extend(0, "mine")
}

func TestMappedGuest(t *testing.T) { mappedGuest(t, newRig(t)) }

// TestMappedCrashAtEveryPoint kills the worker once at each failpoint of that life.
func TestMappedCrashAtEveryPoint(t *testing.T) {
	crashEverywhere(t, 3, 17, mappedGuest)
}

// TestWhenPCRsAreMapped: before the guest, and never over what it has seen.
func TestWhenPCRsAreMapped(t *testing.T) {
	r := newRig(t)
	none, here, there := abi.PCRMap{}, hostMap(1), hostMap(2)
	try := func(m *abi.PCRMap, want error) {
		t.Helper()
		if err := r.slot.mapPCRs(m); !errors.Is(err, want) {
			t.Errorf("map PCRs: %v, want %v", err, want)
		}
	}
	try(&here, errOrder)
	r.powerOn(r.run)
	try(&there, nil)
	try(&none, nil)
	try(&here, nil)
	r.tpm.Startup()
	try(&here, nil)
	try(&there, errOrder)
	try(&none, errOrder)
	r.checkPCRs("after refusals", &here)
	r.reset()
	try(&there, nil)
	r.tpm.Startup()
	r.checkPCRs("after a reset", &there)
	r.slot.fail("for the test", nil)
	try(&here, errFailed)
	r.reset()
	r.tpm.Startup()
	r.checkPCRs("after a failure", &there)
	r.reset()
	try(&none, nil)
	r.tpm.Startup()
	r.tpm.Extend(0, "mine")
	try(&here, errOrder)
}

// TestHostBootEndsMap: the host's PCRs may be others after its boot, and the run's
// name the same.
func TestHostBootEndsMap(t *testing.T) {
	r := newRig(t)
	r.powerOn(r.run)
	r.mapPCRs(hostMap(1))
	r.tpm.Startup()
	r.slot.over = true
	r.powerOn(r.run)
	r.tpm.Startup()
	r.checkPCRs("after the host's boot", &abi.PCRMap{})
}

// TestMapOnFullDisk: a map that is not on disk is not in force, nor is the
// Startup that it should come with.
func TestMapOnFullDisk(t *testing.T) {
	r := newRig(t)
	here := hostMap(1)
	r.powerOn(r.run)
	r.diskFull = true
	if err := r.slot.mapPCRs(&here); !errors.Is(err, errNotWritten) {
		t.Errorf("map PCRs on a full disk: %v, want errNotWritten", err)
	}
	r.diskFull = false
	r.mapPCRs(here)
	r.diskFull = true
	if _, err := (tpm2.Startup{StartupType: tpm2.TPMSUClear}).Execute(r.tpm); !errors.Is(err, tpm2.TPMRCNVUnavailable) {
		t.Errorf("Startup on a full disk: %v, want TPM_RC_NV_UNAVAILABLE", err)
	}
	r.diskFull = false
	r.tpm.Startup()
	r.checkPCRs("when there is room", &here)
}

// strange is a TPM whose volatile state has a form that nobody knows.
type strange struct {
	tpm
	on *bool
}

func (s strange) Volatile(dst []byte) (int, error) {
	n, err := s.tpm.Volatile(dst)
	if *s.on && err == nil {
		dst[n-1] ^= 1
	}
	return n, err
}

// TestMapIsRefused: where the state is not understood there is no mapping, and
// no TPM with PCRs that are half of it.
func TestMapIsRefused(t *testing.T) {
	r := newRig(t)
	here := hostMap(1)
	on := false
	r.slot.tpm = strange{r.slot.tpm, &on}
	r.powerOn(r.run)
	test := func(m abi.PCRMap) error {
		n, err := r.slot.tpm.Volatile(r.slot.plain)
		if err != nil {
			t.Fatal(err)
		}
		on = true
		defer func() { on = false }()
		// What the slot reads itself is whole: only the test meets the form.
		r.slot.tpm = &fixed{r.slot.tpm, bytes.Clone(r.slot.plain[:n])}
		defer func() { r.slot.tpm = r.slot.tpm.(*fixed).tpm }()
		return r.slot.mapPCRs(&m)
	}
	if err := test(here); !errors.Is(err, pcrmap.ErrRefused) || statusOf(err) != abi.StatusUnsupported {
		t.Fatalf("map PCRs: %v, want a refusal", err)
	}
	r.tpm.Startup()
	r.checkPCRs("after a refusal", &abi.PCRMap{})
	r.reset()
	r.mapPCRs(here)
	on = true
	if _, err := (tpm2.Startup{StartupType: tpm2.TPMSUClear}).Execute(r.tpm); !errors.Is(err, errFailed) {
		t.Errorf("Startup that cannot be mapped: %v, want errFailed", err)
	}
	on = false
	r.reset()
	r.tpm.Startup()
	r.checkPCRs("after all", &here)
}

// fixed gives a volatile state that was read before, the first time.
type fixed struct {
	tpm
	first []byte
}

func (f *fixed) Volatile(dst []byte) (int, error) {
	if f.first == nil {
		return f.tpm.Volatile(dst)
	}
	n := copy(dst, f.first)
	f.first = nil
	return n, nil
}

// TestMapMoves: a state that is loaded has the PCRs that it was saved with, until it
// gets others.
func TestMapMoves(t *testing.T) {
	r := newRig(t)
	here, there := hostMap(1), hostMap(2)
	r.powerOn(r.run)
	r.mapPCRs(here)
	r.tpm.Startup()
	r.tpm.Extend(8, "a boot loader")
	pcr8 := r.tpm.PCR(8)
	perm, vol, err := r.slot.saveState()
	if err != nil {
		t.Fatal(err)
	}
	load := func(run byte) {
		t.Helper()
		if _, err := r.slot.loadState([abi.RunIDSize]byte{run}, perm, vol); err != nil {
			t.Fatal(err)
		}
	}
	load(2)
	r.checkPCRs("as saved", &here)
	if _, err := tpmtest.ExtendCommand(0, "mine").Execute(r.tpm); !errors.Is(err, tpm2.TPMRCLocality) {
		t.Errorf("PCR_Extend(0): %v, want TPM_RC_LOCALITY", err)
	}
	if err := r.slot.mapPCRs(&abi.PCRMap{}); !errors.Is(err, errOrder) {
		t.Errorf("no map for a guest that runs: %v, want errOrder", err)
	}
	r.mapPCRs(there)
	r.checkPCRs("on another host", &there)
	if got := r.tpm.PCR(8); got != pcr8 {
		t.Errorf("PCR 8 = %x, want %x", got, pcr8)
	}
	r.shut()
	r.open()
	r.powerOn([abi.RunIDSize]byte{2})
	r.checkPCRs("with another worker", &there)
}

// TestChangesHostPCR: five commands, eight PCRs, and nothing else.
func TestChangesHostPCR(t *testing.T) {
	command := func(code, handle uint32) []byte {
		b := binary.BigEndian.AppendUint32([]byte{0x80, 0x02, 0, 0, 0, 14}, code)
		return binary.BigEndian.AppendUint32(b, handle)
	}
	for code := uint32(0x100); code < 0x1c0; code++ {
		changes := code == 0x182 || code == 0x13c || code == 0x13d || code == 0x183 || code == 0x185
		for _, handle := range []uint32{0, 7, 8, 23, 0x40000007, 0x80000000, 0xffffffff} {
			if got := changesHostPCR(command(code, handle)); got != (changes && handle < 8) {
				t.Errorf("changesHostPCR(%#x, %#x) = %t", code, handle, got)
			}
		}
		if changesHostPCR(command(code, 0)[:13]) || changesHostPCR(command(code|1<<29, 0)) {
			t.Errorf("code %#x: a command that is none is refused", code)
		}
	}
}
