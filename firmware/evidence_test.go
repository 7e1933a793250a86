// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/coproctest/tpmtest"
)

// someEvidence is evidence of a host's boot, as the card sees it.
func someEvidence(host byte) []byte { return bytes.Repeat([]byte{host}, 1500+int(host)) }

// keepEvidence gives evidence, over crashes, as a driver does.
func (r *rig) keepEvidence(b []byte) {
	r.t.Helper()
	if err := r.survive(func() error { return r.slot.keepEvidence(b) }); err != nil {
		r.t.Fatalf("boot evidence: %v", err)
	}
}

// evidence reads the index as a guest does, with the owner's empty password. nil: there
// is none.
func (r *rig) evidence() []byte {
	r.t.Helper()
	const index = tpm2.TPMHandle(abi.BootEvidenceIndex)
	public, err := tpm2.NVReadPublic{NVIndex: index}.Execute(r.tpm)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nil
	}
	if err != nil {
		r.t.Fatalf("NV_ReadPublic: %v", err)
	}
	nv, err := public.NVPublic.Contents()
	if err != nil {
		r.t.Fatal(err)
	}
	if a := nv.Attributes; !a.PlatformCreate || !a.WriteLocked || !a.Written || nv.DataSize != abi.MaxBootEvidence {
		r.t.Errorf("the index has %d bytes and %+v", nv.DataSize, a)
	}
	var all []byte
	for len(all) < int(nv.DataSize) {
		rsp, err := tpm2.NVRead{
			AuthHandle: tpm2.TPMRHOwner, NVIndex: tpm2.NamedHandle{Handle: index, Name: public.NVName},
			Size: 1024, Offset: uint16(len(all)),
		}.Execute(r.tpm)
		if err != nil {
			r.t.Fatalf("NV_Read: %v", err)
		}
		all = append(all, rsp.Data.Buffer...)
	}
	return all
}

// wantEvidence checks what a guest reads. nil: nothing is there.
func (r *rig) wantEvidence(when string, want []byte) {
	r.t.Helper()
	if want != nil {
		want = append(bytes.Clone(want), make([]byte, abi.MaxBootEvidence-len(want))...)
	}
	if got := r.evidence(); !bytes.Equal(got, want) {
		r.t.Fatalf("%s: the index holds %d bytes, %.8x..., want %d, %.8x...", when, len(got), got, len(want), want)
	}
}

// writeEvidence is what a guest's root tries, whose firmware left the platform's
// password empty.
func (r *rig) writeEvidence() error {
	public, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(abi.BootEvidenceIndex)}.Execute(r.tpm)
	if err != nil {
		r.t.Fatal(err)
	}
	_, err = tpm2.NVWrite{
		AuthHandle: tpm2.TPMRHPlatform, NVIndex: tpm2.NamedHandle{Handle: tpm2.TPMHandle(abi.BootEvidenceIndex), Name: public.NVName},
		Data: tpm2.TPM2BMaxNVBuffer{Buffer: []byte("forged")},
	}.Execute(r.tpm)
	return err
}

// guestWithEvidence is the life of a guest that can show how its host has started.
func guestWithEvidence(t *testing.T, r *rig) {
	here, there := someEvidence(1), someEvidence(2)
	r.powerOn([abi.RunIDSize]byte{1})
	r.keepEvidence(here)
	r.tpm.Startup()
	r.wantEvidence("after Startup", here)
	r.keepEvidence(here)
	if err := r.writeEvidence(); !errors.Is(err, tpm2.TPMRCNVLocked) {
		t.Fatalf("NV_Write by the platform: %v, want TPM_RC_NV_LOCKED", err)
	}
	r.tpm.Extend(0, "the guest's own firmware")
	pcr := r.tpm.PCR(0)
	if _, err := (tpm2.Shutdown{ShutdownType: tpm2.TPMSUState}).Execute(r.tpm); err != nil {
		t.Fatal(err)
	}
	r.reset()
	r.startup(tpm2.TPMSUState)
	r.wantEvidence("after a sleep", here)
	if got := r.tpm.PCR(0); got != pcr {
		t.Fatalf("PCR 0 after a sleep = %x, want %x", got, pcr)
	}
	r.reset()
	r.tpm.Startup()
	r.wantEvidence("after a reset without other evidence", here)
	r.reset()
	r.keepEvidence(there)
	r.tpm.Startup()
	r.wantEvidence("after a reset with other evidence", there)
	r.powerOn([abi.RunIDSize]byte{2})
	r.tpm.Startup()
	r.wantEvidence("in a run without evidence", nil)
	r.reset()
	r.mapPCRs(hostMap(3))
	r.keepEvidence(here)
	r.tpm.Startup()
	r.wantEvidence("beside a map", here)
	r.checkPCRs("beside evidence", new(hostMap(3)))
}

func TestGuestWithEvidence(t *testing.T) { guestWithEvidence(t, newRig(t)) }

// TestEvidenceCrashAtEveryPoint kills the worker once at each failpoint of that life.
func TestEvidenceCrashAtEveryPoint(t *testing.T) {
	crashEverywhere(t, 3, 17, guestWithEvidence)
}

// TestWhenEvidenceIsKept: before the guest, and never behind its back.
func TestWhenEvidenceIsKept(t *testing.T) {
	r := newRig(t)
	here, there := someEvidence(1), someEvidence(2)
	try := func(b []byte, want error) {
		t.Helper()
		if err := r.slot.keepEvidence(b); !errors.Is(err, want) {
			t.Errorf("boot evidence: %v, want %v", err, want)
		}
	}
	try(here, errOrder)
	r.powerOn(r.run)
	try(there, nil)
	try(here, nil)
	r.tpm.Startup()
	try(here, nil)
	try(there, errOrder)
	r.wantEvidence("after a refusal", here)
	r.slot.fail("for the test", nil)
	try(there, errFailed)
	r.reset()
	r.tpm.Startup()
	r.wantEvidence("after a failure", here)
	r.slot.over = true
	r.powerOn(r.run)
	r.tpm.Startup()
	r.wantEvidence("after the host's boot", nil)
}

// TestEvidenceOnFullDisk: what is not on disk is not shown, nor is the Startup that it
// should come with.
func TestEvidenceOnFullDisk(t *testing.T) {
	r := newRig(t)
	here := someEvidence(1)
	r.powerOn(r.run)
	r.diskFull = true
	if err := r.slot.keepEvidence(here); !errors.Is(err, errNotWritten) {
		t.Errorf("boot evidence on a full disk: %v, want errNotWritten", err)
	}
	r.diskFull = false
	r.keepEvidence(here)
	r.diskFull = true
	if _, err := (tpm2.Startup{StartupType: tpm2.TPMSUClear}).Execute(r.tpm); !errors.Is(err, tpm2.TPMRCNVUnavailable) {
		t.Errorf("Startup on a full disk: %v, want TPM_RC_NV_UNAVAILABLE", err)
	}
	r.diskFull = false
	r.tpm.Startup()
	r.wantEvidence("when there is room", here)
}

// TestEvidenceInFullNV: a guest that fills its NV starts without evidence, which is
// counted; one that had it keeps the place.
func TestEvidenceInFullNV(t *testing.T) {
	r := newRig(t)
	r.powerOn(r.run)
	r.tpm.Startup()
	fill := func() (n int) {
		for index := tpmtest.NVBase; ; index++ {
			_, err := tpm2.NVDefineSpace{
				AuthHandle: tpm2.TPMRHOwner,
				PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{
					NVIndex: tpm2.TPMHandle(index), NameAlg: tpm2.TPMAlgSHA256, DataSize: 1024,
					Attributes: tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, NoDA: true},
				}),
			}.Execute(r.tpm)
			if errors.Is(err, tpm2.TPMRCNVSpace) {
				return n
			}
			if err != nil && !errors.Is(err, tpm2.TPMRCNVDefined) {
				t.Fatal(err)
			}
			n++
		}
	}
	if fill() == 0 {
		t.Fatal("nothing fits from the start")
	}
	r.reset()
	r.keepEvidence(someEvidence(1))
	r.tpm.Startup()
	r.wantEvidence("in a full NV", nil)
	if r.slot.stats.Unshown != 1 {
		t.Errorf("%d starts without evidence are counted, want 1", r.slot.stats.Unshown)
	}
	if _, err := (tpm2.Clear{AuthHandle: tpm2.TPMRHLockout}).Execute(r.tpm); err != nil {
		t.Fatal(err)
	}
	r.reset()
	r.tpm.Startup()
	r.wantEvidence("when there is room", someEvidence(1))
	fill()
	r.reset()
	r.keepEvidence(someEvidence(2))
	r.tpm.Startup()
	r.wantEvidence("in the place that it had", someEvidence(2))
}

// TestEvidenceReplacesGuestsIndex: what a guest has put at the index is no evidence.
func TestEvidenceReplacesGuestsIndex(t *testing.T) {
	r := newRig(t)
	r.powerOn(r.run)
	r.tpm.Startup()
	r.tpm.DefineNV(abi.BootEvidenceIndex, 16)
	r.tpm.WriteNV(abi.BootEvidenceIndex, []byte("forged evidence."))
	r.reset()
	r.keepEvidence(someEvidence(1))
	r.tpm.Startup()
	r.wantEvidence("over a guest's index", someEvidence(1))
}

// TestEvidenceBehindGuestsPolicy: an index that only its own policy removes, as one who
// had the platform's authority can make it, stays. The guest starts without evidence
// each time, which is counted.
func TestEvidenceBehindGuestsPolicy(t *testing.T) {
	r := newRig(t)
	r.powerOn(r.run)
	r.tpm.Startup()
	_, err := tpm2.NVDefineSpace{
		AuthHandle: tpm2.TPMRHPlatform,
		PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{
			NVIndex: abi.BootEvidenceIndex, NameAlg: tpm2.TPMAlgSHA256, DataSize: 16,
			AuthPolicy: tpm2.TPM2BDigest{Buffer: bytes.Repeat([]byte{1}, 32)},
			Attributes: tpm2.TPMANV{PPWrite: true, PPRead: true, OwnerRead: true, NoDA: true, PlatformCreate: true, PolicyDelete: true},
		}),
	}.Execute(r.tpm)
	if err != nil {
		t.Fatal(err)
	}
	for n := range uint64(2) {
		r.reset()
		r.keepEvidence(someEvidence(1))
		r.tpm.Startup()
		if r.slot.stats.Unshown != n+1 {
			t.Errorf("%d starts without evidence are counted, want %d", r.slot.stats.Unshown, n+1)
		}
	}
	if info, err := (tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(abi.BootEvidenceIndex)}).Execute(r.tpm); err != nil {
		t.Error(err)
	} else if c, err := info.NVPublic.Contents(); err != nil || !c.Attributes.PolicyDelete || c.DataSize != 16 {
		t.Errorf("the index: %+v, %v", c, err)
	}
}

// TestEvidenceMoves: a state that is loaded shows what it was saved with, and from the
// next reset on what the host says that it is on now.
func TestEvidenceMoves(t *testing.T) {
	r := newRig(t)
	here, there := someEvidence(1), someEvidence(2)
	r.powerOn(r.run)
	r.keepEvidence(here)
	r.tpm.Startup()
	perm, vol, err := r.slot.saveState()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.slot.loadState([abi.RunIDSize]byte{2}, perm, vol); err != nil {
		t.Fatal(err)
	}
	r.run = [abi.RunIDSize]byte{2}
	r.keepEvidence(there)
	r.wantEvidence("as saved", here)
	r.reset()
	r.tpm.Startup()
	r.wantEvidence("after a reset", there)
}

// TestStartsClear: one command, and nothing else.
func TestStartsClear(t *testing.T) {
	startup := []byte{0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0}
	if !startsClear(startup) {
		t.Error("TPM2_Startup(CLEAR) is not known")
	}
	for at := 6; at < len(startup); at++ {
		other := bytes.Clone(startup)
		other[at]++
		if startsClear(other) || startsClear(startup[:at]) {
			t.Errorf("% x, or % x, is taken for it", other, startup[:at])
		}
	}
}
