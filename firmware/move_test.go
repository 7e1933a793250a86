// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/coproctest/tpmtest"
	"hwvtpm/firmware/sealed"
)

// luggage is a state outside of its card, and what a TPM in it has to show.
type luggage struct {
	perm, vol []byte
	pcr       tpmtest.Digest
	srk       tpmtest.Object
	policy    tpmtest.Policy
	random    []byte
	n         uint64
	seq       uint64 // last on record
}

var (
	runOne = [abi.RunIDSize]byte{1}
	runTwo = [abi.RunIDSize]byte{2}
)

// pack gives a TPM something of each kind of state and saves it. What comes after
// is in the journal, and saved as well.
func (r *rig) pack() *luggage {
	r.t.Helper()
	l := &luggage{srk: r.tpm.CreateSRK(), policy: r.tpm.StartPolicy()}
	r.tpm.DefineCounter(tpmtest.NVBase, false)
	count(r.tpm, tpmtest.NVBase, 1)
	l.n = counter(r.tpm, tpmtest.NVBase)
	r.tpm.Require(l.policy, tpm2.TPMCCUnseal)
	r.tpm.Extend(10, "packed")
	l.pcr = r.tpm.PCR(10)
	r.save(l)
	l.random = r.tpm.Random(16)
	return l
}

func (r *rig) save(l *luggage) {
	r.t.Helper()
	var err error
	l.seq = r.slot.seq
	if l.perm, l.vol, err = r.slot.saveState(); err != nil {
		r.t.Fatalf("save: %v", err)
	}
}

// load loads a state, through crashes.
func (r *rig) load(run [abi.RunIDSize]byte, l *luggage) error {
	for {
		var reply abi.PowerOnReply
		crashed, err := r.attempt(func() (err error) {
			reply, err = r.slot.loadState(run, l.perm, l.vol)
			return err
		})
		if !crashed {
			if err == nil && (!reply.Resumed || reply.LastSeq < l.seq) {
				r.t.Errorf("load = %+v after command %d", reply, l.seq)
			}
			if err == nil {
				r.run = run
			}
			return err
		}
		r.crashes++
		r.tear()
		r.shut()
		r.open()
	}
}

func (r *rig) mustLoad(run [abi.RunIDSize]byte, l *luggage) {
	r.t.Helper()
	if err := r.load(run, l); err != nil {
		r.t.Fatalf("load: %v", err)
	}
}

// wantUnpacked checks that the TPM goes on where it was packed.
func (r *rig) wantUnpacked(l *luggage) {
	r.t.Helper()
	if got := r.tpm.PCR(10); got != l.pcr {
		r.t.Errorf("PCR 10 = %x, want %x", got, l.pcr)
	}
	if d, ok := r.tpm.PolicyDigest(l.policy); !ok || d != policyUnseal || !r.tpm.Loaded(l.srk) {
		r.t.Errorf("session or key is lost: digest %x, %t", d, ok)
	}
	if got := counter(r.tpm, tpmtest.NVBase); got != l.n {
		r.t.Errorf("counter = %d, want %d", got, l.n)
	}
	if bytes.Equal(r.tpm.Random(16), l.random) {
		r.t.Errorf("random numbers repeat")
	}
}

// packed gives a slot whose state was saved, as it was left by its driver.
func packed(t *testing.T) (*rig, *luggage) {
	r := newRig(t)
	r.powerOn(runOne)
	r.tpm.Startup()
	l := r.pack()
	r.shut()
	r.open()
	return r, l
}

func TestMove(t *testing.T) {
	r, l := packed(t)
	r.mustLoad(runTwo, l)
	r.wantUnpacked(l)
	r.tpm.Extend(10, "goes on")
	count(r.tpm, tpmtest.NVBase, 1)
	r.shut()
	r.open()
	if reply := r.powerOn(runTwo); !reply.Resumed {
		t.Errorf("power-on = %+v, want a resume", reply)
	}
	if got, want := r.tpm.PCR(10), tpmtest.Extended(l.pcr, "goes on"); got != want {
		t.Errorf("PCR 10 = %x, want %x", got, want)
	}
}

// TestMoveInsideAProcess: a machine loads a snapshot of itself, while its TPM runs.
func TestMoveInsideAProcess(t *testing.T) {
	r := newRig(t)
	r.powerOn(runOne)
	r.tpm.Startup()
	l := r.pack()
	r.tpm.Extend(10, "undone")
	r.mustLoad(runTwo, l)
	r.wantUnpacked(l)
}

// TestMoveOverBoot: a machine that was saved is restored after the host booted.
func TestMoveOverBoot(t *testing.T) {
	r, l := packed(t)
	r.slot.store.(*pointStorage).boot = [16]byte{0xbb}
	r.mustLoad(runTwo, l)
	r.wantUnpacked(l)
}

// TestMoveBack: a migration fails after its destination has loaded the state, and
// the source goes on; when it was used there, the source is refused.
func TestMoveBack(t *testing.T) {
	r, l := packed(t)
	r.mustLoad(runOne, l) // the destination never came
	r.wantUnpacked(l)
	r.shut()
	r.open()
	r.mustLoad(runTwo, l)
	r.mustLoad(runTwo, l) // its answer was lost
	r.shut()
	r.open()
	r.mustLoad(runTwo, l)
	r.mustLoad(runOne, l)
	r.wantUnpacked(l)
	r.shut()
	r.open()
	r.mustLoad(runTwo, l)
	r.tpm.Extend(10, "used")
	pcr := r.tpm.PCR(10)
	for _, run := range [][abi.RunIDSize]byte{runOne, runTwo, {3}} {
		if err := r.load(run, l); !errors.Is(err, sealed.ErrRollback) && !errors.Is(err, errOrder) {
			t.Errorf("load for run %d after it was used: %v, want a refusal", run[0], err)
		}
	}
	if got := r.tpm.PCR(10); got != pcr {
		t.Errorf("PCR 10 after refusals = %x, want %x", got, pcr)
	}
	r.shut()
	r.open()
	if err := r.load(runOne, l); !errors.Is(err, sealed.ErrRollback) {
		t.Errorf("load after it was used: %v, want ErrRollback", err)
	}
	if reply := r.powerOn(runTwo); !reply.Resumed || r.tpm.PCR(10) != pcr {
		t.Errorf("power-on after a refusal = %+v, want a resume", reply)
	}
}

// TestMoveRollback: an older state is refused until somebody says so, and once.
func TestMoveRollback(t *testing.T) {
	r, l := packed(t)
	r.powerOn(runOne)
	count(r.tpm, tpmtest.NVBase, 5)
	for range 2 {
		err := r.load(runTwo, l)
		if !errors.Is(err, sealed.ErrRollback) || !strings.Contains(err.Error(), "used since") || !strings.Contains(err.Error(), "on purpose") {
			t.Fatalf("load of an older state: %v, want ErrRollback and what to do", err)
		}
		if got := counter(r.tpm, tpmtest.NVBase); got != l.n+5 {
			t.Errorf("counter = %d after the refusal, want %d", got, l.n+5)
		}
	}
	r.permit()
	generation := r.slot.state.generation
	r.mustLoad(runTwo, l)
	r.wantUnpacked(l)
	if r.slot.state.generation <= generation {
		t.Errorf("generation went from %d to %d", generation, r.slot.state.generation)
	}
	count(r.tpm, tpmtest.NVBase, 1)
	if err := r.load(runOne, l); !errors.Is(err, sealed.ErrRollback) {
		t.Errorf("load by a permission that was used: %v, want ErrRollback", err)
	}
}

// permit permits one older state.
func (r *rig) permit() {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, restoreName), nil, 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// TestMoveExact: a TPM with one-time secrets in its volatile state is not set back
// to an earlier moment even of one permanent state.
func TestMoveExact(t *testing.T) {
	r := newRig(t)
	r.powerOn(runOne)
	r.tpm.Startup()
	r.slot.state.flags |= stateFlagExact
	l := r.pack()
	if err := r.load(runTwo, l); !errors.Is(err, sealed.ErrRollback) {
		t.Errorf("load of an earlier moment: %v, want ErrRollback", err)
	}
	r.save(l)
	r.mustLoad(runTwo, l)
}

// TestMoveIsOfOneSlot: what is damaged, mixed or of elsewhere is refused, and
// nothing has changed then.
func TestMoveIsOfOneSlot(t *testing.T) {
	r, l := packed(t)
	later := *l
	r.powerOn(runOne)
	r.tpm.Extend(10, "later")
	r.save(&later)
	pcr := r.tpm.PCR(10)
	count(r.tpm, tpmtest.NVBase, 1)
	newest := later
	r.save(&newest)
	other := newRig(t)
	state, err := r.slot.store.(*pointStorage).readState()
	if err != nil {
		t.Fatal(err)
	}
	vol := bytes.Clone(r.slot.blob)
	for _, tc := range []struct {
		name      string
		perm, vol []byte
		want      error
	}{
		{"nothing", nil, nil, errCorrupt},
		{"swapped", newest.vol, newest.perm, errForeign},
		{"two moments", later.perm, newest.vol, errCorrupt},
		{"state file", state, newest.vol, errForeign},
		{"checkpoint", newest.perm, vol, errForeign},
		{"cut", newest.perm, newest.vol[:len(newest.vol)-1], errCorrupt},
	} {
		_, err := r.slot.loadState(runTwo, tc.perm, tc.vol)
		if statusOf(err) != statusOf(tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
	for i := 0; i < len(newest.vol)*8; i += 997 {
		for _, which := range []int{0, 1} {
			parts := [2][]byte{bytes.Clone(newest.perm), bytes.Clone(newest.vol)}
			parts[which][i/8%len(parts[which])] ^= 1 << (i % 8)
			if _, err := r.slot.loadState(runTwo, parts[0], parts[1]); err == nil {
				t.Fatalf("part %d with bit %d flipped was loaded", which, i)
			}
		}
	}
	if got := r.tpm.PCR(10); got != pcr {
		t.Errorf("PCR 10 after refusals = %x, want %x", got, pcr)
	}
	r.shut()
	other.shut()
	other.open()
	if err := other.load(runTwo, &newest); statusOf(err) == abi.StatusOK {
		t.Errorf("another slot loaded the state")
	}
}

// TestMoveHidesSecrets: nothing that the TPM must keep can be seen in what leaves.
func TestMoveHidesSecrets(t *testing.T) {
	r := newRig(t)
	r.powerOn(runOne)
	r.tpm.Startup()
	secret := "a secret that is easy to find"
	r.tpm.DefineNV(tpmtest.NVBase, len(secret))
	r.tpm.WriteNV(tpmtest.NVBase, []byte(secret))
	r.tpm.SealWithPassword(r.tpm.CreateSRK(), secret, "a password that is easy to find")
	l := &luggage{}
	r.save(l)
	if !bytes.Contains(r.slot.state.permanent, []byte(secret)) {
		t.Fatal("the secret is not to be found inside either")
	}
	for _, part := range [][]byte{l.perm, l.vol} {
		for _, s := range []string{secret, "easy to find", "hwvtpm-s", string(r.slot.state.permanent[100:116])} {
			if bytes.Contains(part, []byte(s)) {
				t.Errorf("%q can be seen in a part that leaves", s)
			}
		}
	}
}

// TestMoveCrashAtEveryPoint kills the worker at each point of a load: there is
// the old run or the new one, and loading again comes to the same.
func TestMoveCrashAtEveryPoint(t *testing.T) {
	for _, fresh := range []bool{false, true} {
		for target := 1; ; target++ {
			r, l := packed(t)
			if fresh { // as after the host's boot, or another card process
				if err := os.Remove(filepath.Join(r.dir, volatileName)); err != nil {
					t.Fatal(err)
				}
			}
			r.points, r.target = 0, target
			r.mustLoad(runTwo, l)
			r.target = 0
			r.wantUnpacked(l)
			r.shut()
			if t.Failed() {
				t.Fatalf("with a crash at point %d, volatile file missing %t", target, fresh)
			}
			if r.crashes == 0 {
				t.Logf("%d points", r.points)
				break
			}
		}
	}
}

// TestMoveCrashLeavesOldRun: until a load is done the run that was saved can be
// taken up again.
func TestMoveCrashLeavesOldRun(t *testing.T) {
	for target := 1; ; target++ {
		r, l := packed(t)
		r.points, r.target = 0, target
		crashed, err := r.attempt(func() error {
			_, err := r.slot.loadState(runTwo, l.perm, l.vol)
			return err
		})
		if !crashed {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		r.target = 0
		r.tear()
		r.shut()
		r.open()
		r.mustLoad(runOne, l)
		r.wantUnpacked(l)
		if t.Failed() {
			t.Fatalf("with a crash at point %d", target)
		}
	}
}

// TestMoveDiskFull: a load that cannot be written leaves the slot off, and the run
// that it was in.
func TestMoveDiskFull(t *testing.T) {
	r := newRig(t)
	r.powerOn(runOne)
	r.tpm.Startup()
	l := r.pack()
	r.diskFull = true
	if err := r.load(runTwo, l); !errors.Is(err, errNotWritten) {
		t.Errorf("load on a full disk: %v, want errNotWritten", err)
	}
	if r.slot.phase != abi.SlotOff {
		t.Errorf("slot is %v, want off", r.slot.phase)
	}
	r.diskFull = false
	if reply := r.powerOn(runOne); !reply.Resumed {
		t.Errorf("power-on = %+v, want a resume", reply)
	}
	r.wantUnpacked(l)
}

func TestSaveStateBeforePowerOn(t *testing.T) {
	r := newRig(t)
	if _, _, err := r.slot.saveState(); !errors.Is(err, errOrder) {
		t.Errorf("save before power-on: %v, want errOrder", err)
	}
}
