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

// hash is the driver with a hash sequence: one number, and again after crashes.
func (r *rig) hash(data string) {
	r.t.Helper()
	r.seq++
	resp := make([]byte, abi.MaxPayload)
	err := r.survive(func() error {
		n, _, err := r.slot.hash(r.seq, []byte(data), resp)
		if err == nil && (n != tpmHeaderSize || responseCode(resp) != rcSuccess) {
			r.t.Errorf("hash sequence is answered with %x", resp[:n])
		}
		return err
	})
	if err != nil {
		r.t.Fatalf("hash sequence: %v", err)
	}
}

// pcrUpdates is the TPM's counter of changes of PCRs.
func (r *rig) pcrUpdates() uint32 {
	r.t.Helper()
	read, err := tpm2.PCRRead{PCRSelectionIn: tpm2.TPMLPCRSelection{}}.Execute(r.tpm)
	if err != nil {
		r.t.Fatal(err)
	}
	return read.PCRUpdateCounter
}

// launched is PCR 17 after a dynamic launch.
func launched(data string) tpmtest.Digest { return tpmtest.Extended(tpmtest.Digest{}, data) }

func (r *rig) wantPCR(when string, pcr int, want tpmtest.Digest) {
	r.t.Helper()
	if got := r.tpm.PCR(pcr); got != want {
		r.t.Fatalf("%s: PCR %d = %x, want %x", when, pcr, got, want)
	}
}

// launchedGuest is the life of a guest that is measured by its processor.
func launchedGuest(_ *testing.T, r *rig) {
	r.powerOn([abi.RunIDSize]byte{1})
	r.hash("not this one")
	r.hash("firmware")
	r.tpm.Startup()
	hcrtm := tpmtest.Extended(tpmtest.Digest{31: 4}, "firmware")
	r.wantPCR("after an H-CRTM", 0, hcrtm)
	r.tpm.Extend(10, "boot loader")
	pcr10 := r.tpm.PCR(10)
	session := r.tpm.HMACSession()
	srk := r.tpm.CreateSRK()
	var steps [3]uint32 // each sequence is done once: the counter of changes says so
	for i, data := range []string{"one", "", "three"} {
		before := r.pcrUpdates()
		r.hash(data)
		steps[i] = r.pcrUpdates() - before
		r.wantPCR("after a launch", 17, launched(data))
		r.wantPCR("after a launch", 18, tpmtest.Digest{})
	}
	if steps[0] == 0 || steps[0] != steps[1] || steps[0] != steps[2] {
		r.t.Errorf("three sequences changed PCRs %v times", steps)
	}
	if err := r.tpm.UseSession(session, srk); err != nil {
		r.t.Errorf("use of a session: %v", err)
	}
	r.wantPCR("after launches", 0, hcrtm)
	if _, err := (tpm2.Shutdown{ShutdownType: tpm2.TPMSUState}).Execute(r.tpm); err != nil {
		r.t.Fatal(err)
	}
	r.hash("after Shutdown")
	r.reset()
	r.hash("firmware") // without, the TPM refuses to wake up: Part 3, 9.3
	r.startup(tpm2.TPMSUState)
	r.wantPCR("after a sleep", 10, pcr10)
	r.reset()
	r.tpm.Startup()
	r.wantPCR("after a reset", 0, tpmtest.Digest{})
}

func TestLaunchedGuest(t *testing.T) { launchedGuest(t, newRig(t)) }

// TestLaunchedCrashAtEveryPoint kills the worker once at each failpoint of that life.
func TestLaunchedCrashAtEveryPoint(t *testing.T) {
	crashEverywhere(t, 2, 11, launchedGuest)
}

// TestHashOnRecord: a number is done once, and its answer can be had again from another
// worker.
func TestHashOnRecord(t *testing.T) {
	r := newRig(t)
	r.powerOn(r.run)
	r.tpm.Startup()
	r.hash("one")
	before := r.pcrUpdates()
	r.shut()
	r.open()
	r.powerOn(r.run)
	resp := make([]byte, abi.MaxPayload)
	if n, flags, err := r.slot.hash(1, []byte("two"), resp); !errors.Is(err, errSeq) {
		t.Errorf("an old number: %d, %v, %v, want errSeq", n, flags, err)
	}
	r.seq++
	for i, want := range []abi.Flags{0, abi.FlagReplayed} {
		n, flags, err := r.slot.hash(r.seq, []byte("two"), resp)
		if err != nil || flags != want || n != tpmHeaderSize {
			t.Errorf("hash %d = %d, %v, %v", i, n, flags, err)
		}
	}
	r.wantPCR("at the end", 17, launched("two"))
	if r.pcrUpdates() == before {
		t.Error("the PCRs did not change")
	}
}

// TestHashWithHostPCRs: PCR 0 is the host's, so it is not set; PCR 17 is the guest's.
func TestHashWithHostPCRs(t *testing.T) {
	r := newRig(t)
	here := hostMap(1)
	r.powerOn(r.run)
	r.mapPCRs(here)
	resp := make([]byte, abi.MaxPayload)
	if _, _, err := r.slot.hash(1, []byte("x"), resp); !errors.Is(err, errHostPCR) || statusOf(err) != abi.StatusUnsupported {
		t.Errorf("hash before Startup: %v, want errHostPCR", err)
	}
	r.tpm.Startup()
	r.checkPCRs("after a refusal", &here)
	r.hash("launch")
	r.wantPCR("after a launch", 17, launched("launch"))
	r.checkPCRs("after a launch", &here)
	r.slot.fail("for the test", nil)
	if _, _, err := r.slot.hash(99, []byte("x"), resp); !errors.Is(err, errFailed) {
		t.Errorf("hash of a failed slot: %v, want errFailed", err)
	}
}

// TestHashPieces: a sequence comes in pieces, in order, and only whole does it anything.
func TestHashPieces(t *testing.T) {
	s, r := newServer(t)
	ask(t, s, abi.Submission{Op: abi.OpIdentify, Payload: hello})
	piece := func(size, at uint32, b string) abi.Submission {
		return abi.Submission{Op: abi.OpHash, Seq: 5, Payload: append(abi.AppendHashPlace(nil, abi.HashPlace{Size: size, Offset: at}), b...)}
	}
	step := func(what string, sub abi.Submission, want abi.Status, answer int) {
		t.Helper()
		if c, _ := ask(t, s, sub); c.Status != want || want == abi.StatusOK && len(c.Payload) != answer {
			t.Errorf("%s: status %v, answer %x, want %v and %d bytes", what, c.Status, c.Payload, want, answer)
		}
	}
	step("before power-on", piece(1, 0, "x"), abi.StatusOrder, 0)
	r.powerOn(r.run)
	r.seq = 4
	step("no beginning", piece(4, 2, "ta"), abi.StatusOrder, 0)
	step("beginning", piece(4, 0, "da"), abi.StatusOK, 0)
	step("gap", piece(4, 3, "a"), abi.StatusOrder, 0)
	step("another size", piece(5, 2, "ta"), abi.StatusOrder, 0)
	step("malformed", piece(4, 2, "tata"), abi.StatusBadField, 0)
	step("beginning anew", piece(5, 0, "la"), abi.StatusOK, 0)
	step("middle", piece(5, 2, "t"), abi.StatusOK, 0)
	step("end", piece(5, 3, "er"), abi.StatusOK, tpmHeaderSize)
	step("behind the end", piece(5, 3, "er"), abi.StatusOrder, 0)
	step("all of it again", piece(5, 0, "later"), abi.StatusOK, tpmHeaderSize)
	r.seq = 5
	r.tpm.Startup()
	r.wantPCR("at the end", 0, tpmtest.Extended(tpmtest.Digest{31: 4}, "later"))
	big := bytes.Repeat([]byte{'x'}, abi.MaxHash)
	for at := 0; at < len(big); at += abi.MaxHashChunk {
		sub := piece(abi.MaxHash, uint32(at), string(big[at:min(at+abi.MaxHashChunk, len(big))]))
		sub.Seq = 100
		if c, _ := ask(t, s, sub); c.Status != abi.StatusOK {
			t.Fatalf("piece at %d: %v", at, c.Status)
		}
	}
	r.seq = 100
	r.wantPCR("after the largest", 17, launched(string(big)))
}
