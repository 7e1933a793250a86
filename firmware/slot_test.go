// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/coproctest/tpmtest"
	"hwvtpm/firmware/sealed"
)

// cmdStart is TPM2_Startup(CLEAR), cmdExtend a PCR_Extend of PCR 10 by zeros,
// cmdEvent a PCR_Event of PCR 10, cmdStartSession a policy session.
var (
	cmdStart  = []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x44, 0, 0}
	cmdExtend = append([]byte{
		0x80, 0x02, 0, 0, 0, 65, 0, 0, 0x01, 0x82, 0, 0, 0, 10,
		0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0,
		0, 0, 0, 1, 0, 0x0b}, make([]byte, 32)...)
	cmdEvent = []byte{
		0x80, 0x02, 0, 0, 0, 30, 0, 0, 0x01, 0x3c, 0, 0, 0, 10,
		0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0, 0, 1, 'x'}
	cmdStartSession = append([]byte{
		0x80, 0x01, 0, 0, 0, 43, 0, 0, 0x01, 0x76, 0x40, 0, 0, 7, 0x40, 0, 0, 7,
		0, 16}, append(make([]byte, 16), 0, 0, 1, 0, 0x10, 0, 0x0b)...)
)

// once executes a command under a number and gives response and flags.
func (r *rig) once(seq uint64, cmd []byte) ([]byte, abi.Flags, error) {
	resp := make([]byte, abi.MaxPayload)
	n, flags, err := r.slot.execute(seq, 0, bytes.Clone(cmd), resp)
	return resp[:n], flags, err
}

func TestResubmitGivesRecordedResponse(t *testing.T) {
	r := newRig(t)
	r.powerOn(r.run)
	for i, cmd := range [][]byte{cmdStart, cmdExtend, cmdEvent, cmdStartSession} {
		seq := uint64(10 * (i + 1))
		first, flags, err := r.once(seq, cmd)
		if err != nil || flags != 0 || responseCode(first) != rcSuccess {
			t.Fatalf("command %x = %x, %v, %v", cmd, first, flags, err)
		}
		again, flags, err := r.once(seq, cmd)
		if err != nil || flags != abi.FlagReplayed || !bytes.Equal(again, first) {
			t.Errorf("resubmitted %x = %x, %v, %v, want %x replayed", cmd, again, flags, err, first)
		}
		if _, _, err := r.once(seq-1, cmd); !errors.Is(err, errSeq) {
			t.Errorf("number %d after %d: %v, want errSeq", seq-1, seq, err)
		}
	}
}

// TestJournalOverflow extends more often than the journal has room for.
func TestJournalOverflow(t *testing.T) {
	r := newRig(t)
	r.powerOn(r.run)
	r.tpm.Startup()
	var want tpmtest.Digest
	for range 2 * journalSize / len(cmdExtend) {
		r.tpm.Extend(10, "again")
		want = tpmtest.Extended(want, "again")
	}
	st := r.slot.stats
	if st.Journaled < 100 || st.Checkpoints < 3 || st.Checkpoints > 20 {
		t.Errorf("%d journaled, %d checkpoints", st.Journaled, st.Checkpoints)
	}
	r.shut()
	r.open()
	r.powerOn(r.run)
	if got := r.tpm.PCR(10); got != want {
		t.Errorf("PCR 10 = %x, want %x", got, want)
	}
}

// failed checks that a slot answers nothing but failure, until a reset.
func (r *rig) checkFailed(what string) {
	r.t.Helper()
	if _, err := r.slot.powerOn(r.run); !errors.Is(err, errFailed) {
		r.t.Fatalf("%s: power-on: %v, want errFailed", what, err)
	}
	if _, _, err := r.once(1000, cmdStart); !errors.Is(err, errFailed) {
		r.t.Errorf("%s: execute: %v, want errFailed", what, err)
	}
	if err := r.slot.reset(); err != nil {
		r.t.Fatalf("%s: reset: %v", what, err)
	}
	r.seq = 2000
	r.tpm.Startup()
	if got := r.tpm.PCR(10); got != (tpmtest.Digest{}) {
		r.t.Errorf("%s: PCR 10 after reset = %x, want zero", what, got)
	}
	if got := r.tpm.ReadNV(tpmtest.NVBase, 4); string(got) != "keep" {
		r.t.Errorf("%s: NV = %q, want %q", what, got, "keep")
	}
}

// used is a slot with NV, a checkpoint and a journal, shut.
func used(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	r.powerOn(r.run)
	r.tpm.Startup()
	r.tpm.DefineNV(tpmtest.NVBase, 4)
	r.tpm.WriteNV(tpmtest.NVBase, []byte("keep"))
	r.tpm.StartPolicy()
	r.tpm.Extend(10, "a")
	r.tpm.Extend(10, "b")
	r.shut()
	return r
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

// flip inverts one byte of a file.
func (r *rig) flip(name string, off int) {
	r.t.Helper()
	b, err := os.ReadFile(r.path(name))
	if err != nil {
		r.t.Fatal(err)
	}
	b[off] ^= 0x41
	if err := os.WriteFile(r.path(name), b, 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// TestDamagedVolatile: a run whose volatile state is damaged fails, and a
// reset or a new run makes the TPM good again. The NV is never touched.
func TestDamagedVolatile(t *testing.T) {
	serial := uint32(0)
	for name, damage := range map[string]func(r *rig){
		"missing":   func(r *rig) { os.Remove(r.path(volatileName)) },
		"empty":     func(r *rig) { os.Truncate(r.path(volatileName), 0) },
		"truncated": func(r *rig) { os.Truncate(r.path(volatileName), volSize-1) },
		"too long":  func(r *rig) { os.Truncate(r.path(volatileName), volSize+1) },
		"header":    func(r *rig) { r.flip(volatileName, 20) },
		"commit":    func(r *rig) { r.flip(volatileName, commitOffset+5) },
		"journal":   func(r *rig) { r.flip(volatileName, journalOffset+40) },
		"journal 2": func(r *rig) { r.flip(volatileName, journalOffset+150) },
		"checkpoint": func(r *rig) {
			r.flip(volatileName, slotOffset+int(serial&1)*slotSize+ckptBlob+400)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := used(t)
			r.open()
			r.powerOn(r.run)
			serial = r.slot.serial
			r.shut()
			damage(r)
			r.open()
			r.checkFailed(name)
			r.shut()

			damage(r)
			r.open()
			r.powerOn([abi.RunIDSize]byte{0xee})
			r.seq = r.slot.seq
			r.tpm.Startup()
		})
	}
}

// TestEveryDamagedByte flips each byte that counts in the volatile file in
// turn: no flip may go unnoticed.
func TestEveryDamagedByte(t *testing.T) {
	r := used(t)
	b, err := os.ReadFile(r.path(volatileName))
	if err != nil {
		t.Fatal(err)
	}
	r.open()
	s, v := r.slot, &volatileFile{mem: b}
	intact := func() error {
		if err := checkVolatileHeader(b[:volHeaderSize], s.state.slotID); err != nil {
			return err
		}
		_, size, err := s.current(v)
		if err != nil {
			return err
		}
		j, err := s.seals.Journal(s.blob)
		for at := 0; err == nil && at < size; {
			_, at, err = openFrame(s.plain, j, v.journal()[:size], at)
		}
		return err
	}
	if err := intact(); err != nil {
		t.Fatalf("before any damage: %v", err)
	}
	word, _ := v.committed()
	if word.journal == 0 {
		t.Fatal("nothing is in the journal")
	}
	check := func(from, n int) {
		t.Helper()
		for i := from; i < from+n; i++ {
			for _, x := range []byte{0x01, 0x80, 0xff} {
				b[i] ^= x
				if err := intact(); err == nil {
					t.Errorf("byte %#x xor %#x: not noticed", i, x)
				}
				b[i] ^= x
			}
		}
	}
	check(0, volHeaderSize)
	check(commitOffset, 8)
	check(slotOffset+int(word.serial&1)*slotSize, ckptBlob+len(s.blob))
	check(journalOffset, word.journal)
}

func (r *rig) stateBytes() ([]byte, error) { return os.ReadFile(r.path(stateName)) }

// TestDamagedState: a directory that is not a whole, own slot is refused and
// left as it is. No TPM is ever made in it.
func TestDamagedState(t *testing.T) {
	other := used(t)
	for name, tc := range map[string]struct {
		damage func(r *rig)
		want   error
	}{
		"state missing":   {func(r *rig) { os.Remove(r.path(stateName)) }, errCorrupt},
		"state empty":     {func(r *rig) { os.Truncate(r.path(stateName), 0) }, errCorrupt},
		"state truncated": {func(r *rig) { os.Truncate(r.path(stateName), 500) }, errCorrupt},
		"state magic":     {func(r *rig) { r.flip(stateName, 0) }, errCorrupt},
		"state version":   {func(r *rig) { r.flip(stateName, 12) }, errCorrupt},
		"state body":      {func(r *rig) { r.flip(stateName, stateHeaderSize+7) }, errCorrupt},
		"state in clear": {func(r *rig) {
			b := appendState(nil, &durable{generation: 1, permanent: []byte("secret")})
			os.WriteFile(r.path(stateName), b, 0o600)
		}, errCorrupt},
		"key missing": {func(r *rig) { os.Remove(r.path(keyName)) }, sealed.ErrWrongKey},
		"key damaged": {func(r *rig) { r.flip(keyName, 20) }, sealed.ErrDamaged},
		"another key": {func(r *rig) {
			os.Remove(r.path(keyName))
			if _, err := sealed.CreateKeyFile(r.path(keyName), sealed.NewKey()); err != nil {
				r.t.Fatal(err)
			}
		}, sealed.ErrWrongKey},
		"key and nothing else": {func(r *rig) {
			os.Remove(r.path(stateName))
			os.Remove(r.path(volatileName))
		}, errCorrupt}, // by the mark
		"no state and no mark": {func(r *rig) {
			os.Remove(r.path(stateName))
			os.Truncate(r.path(lockName), 0)
		}, errCorrupt}, // by the volatile file
		"state is a link": {func(r *rig) {
			os.Rename(r.path(stateName), r.path("elsewhere"))
			os.Symlink("elsewhere", r.path(stateName))
		}, nil},
		"state is a directory": {func(r *rig) {
			os.Remove(r.path(stateName))
			os.Mkdir(r.path(stateName), 0o700)
		}, errCorrupt},
		"unknown file only": {func(r *rig) {
			os.Remove(r.path(stateName))
			os.Rename(r.path(volatileName), r.path("notes.txt"))
		}, errCorrupt},
		"open to others": {func(r *rig) { os.Chmod(r.dir, 0o750) }, os.ErrPermission},
		"foreign volatile": {func(r *rig) {
			b, _ := os.ReadFile(other.path(volatileName))
			copy(b, appendVolatileHeader(nil, sealed.SlotID{9}, [16]byte{}))
			os.WriteFile(r.path(volatileName), b, 0o600)
		}, errForeign},
	} {
		t.Run(name, func(t *testing.T) {
			r := used(t)
			tc.damage(r)
			before, _ := os.ReadDir(r.dir)
			err := r.tryOpen()
			if err == nil || tc.want != nil && !errors.Is(err, tc.want) {
				t.Fatalf("open = %v, want %v", err, tc.want)
			}
			if after, _ := os.ReadDir(r.dir); len(after) != len(before) {
				t.Errorf("directory had %v, has %v", before, after)
			}
		})
	}
}

// TestCreation: a TPM is made in a missing or empty directory, also where an
// earlier creation was cut short, and exactly once.
func TestCreation(t *testing.T) {
	for name, prepare := range map[string]func(dir string){
		"missing":   func(string) {},
		"empty":     func(dir string) { os.Mkdir(dir, 0o700) },
		"cut short": func(dir string) { os.Mkdir(dir, 0o700); os.WriteFile(dir+"/"+stateTmpName, []byte("x"), 0o600) },
		"cut short in the key": func(dir string) {
			os.Mkdir(dir, 0o700)
			os.WriteFile(dir+"/"+keyName+".123.tmp", []byte("x"), 0o600)
		},
		"cut short after the key": func(dir string) {
			os.Mkdir(dir, 0o700)
			if _, err := sealed.CreateKeyFile(dir+"/"+keyName, sealed.NewKey()); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := &rig{t: t, dir: filepath.Join(t.TempDir(), "slot")}
			prepare(r.dir)
			r.open()
			id := r.slot.state.slotID
			r.shut()
			r.open()
			if r.slot.state.slotID != id || r.slot.state.generation != 1 {
				t.Errorf("second open made a new TPM")
			}
			r.shut()
			if left, _ := filepath.Glob(r.path("key.*")); len(left) > 0 {
				t.Errorf("%v may hold a key, and is left", left)
			}
			for _, e := range []string{"", lockName, stateName, keyName} {
				info, err := os.Stat(r.path(e))
				if err != nil || info.Mode().Perm()&0o077 != 0 {
					t.Errorf("%q: mode %v, %v", e, info.Mode(), err)
				}
			}
		})
	}
}

// TestLostOrExchangedState: without its state file a directory gets no new
// TPM, and it does not take another TPM's, until the mark is removed.
func TestLostOrExchangedState(t *testing.T) {
	a, b := newRig(t), &rig{t: t, dir: filepath.Join(t.TempDir(), "slot")}
	a.shut()
	b.open() // not from the tests' common state
	b.shut()
	other, err := os.ReadFile(b.path(stateName))
	if err != nil {
		t.Fatal(err)
	}
	reopen := func() error {
		eng, err := testEngine()
		if err != nil {
			return err
		}
		s, err := openSlot(a.dir, eng, logger{w: io.Discard})
		if err == nil {
			s.close()
		}
		return err
	}
	for _, name := range []string{stateName, volatileName} {
		if err := os.Remove(a.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if err := reopen(); !errors.Is(err, errCorrupt) {
		t.Errorf("open without a state file: %v, want errCorrupt", err)
	}
	key, err := os.ReadFile(b.path(keyName))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(a.path(stateName), other, 0o600), os.WriteFile(a.path(keyName), key, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := reopen(); !errors.Is(err, errForeign) {
		t.Errorf("open with another TPM's state: %v, want errForeign", err)
	}
	if err := os.Remove(a.path(lockName)); err != nil {
		t.Fatal(err)
	}
	if err := reopen(); err != nil {
		t.Errorf("open after the mark was removed: %v", err)
	}
}

func TestSecondOpenerIsRefused(t *testing.T) {
	r := newRig(t)
	if _, err := openDir(r.dir); !errors.Is(err, errInUse) {
		t.Errorf("second open: %v, want errInUse", err)
	}
}

// TestOldState: swapping in an older state file must not bring back an old
// moment of this run.
func TestOldState(t *testing.T) {
	r := used(t)
	old, err := r.stateBytes()
	if err != nil {
		t.Fatal(err)
	}
	r.open()
	r.powerOn(r.run)
	r.tpm.DefineNV(tpmtest.NVBase+1, 4)
	r.shut()
	if err := os.WriteFile(r.path(stateName), old, 0o600); err != nil {
		t.Fatal(err)
	}
	r.open()
	r.checkFailed("older state file")
}

// TestAuditList: once a command audit list was set, every command may change
// the audit digest, so every one is checkpointed; and the generator, which is
// not stirred then, still never repeats.
func TestAuditList(t *testing.T) {
	r := newRig(t)
	r.powerOn(r.run)
	r.tpm.Startup()
	// TPM2_SetCommandCodeAuditStatus(owner, SHA-256, nothing set or cleared).
	set := command(0x140, 1, authPW, 0, 0x0b, 0, 0, 0, 0, 0, 0, 0, 0)
	copy(set[tpmHeaderSize:], []byte{0x40, 0, 0, 1})
	if resp, err := r.send(set); err != nil || responseCode(resp) != rcSuccess {
		t.Fatalf("SetCommandCodeAuditStatus = %x, %v", resp, err)
	}
	before := r.slot.stats.Checkpoints
	random := r.tpm.Random(16)
	if got := r.slot.stats.Checkpoints; got != before+1 {
		t.Errorf("GetRandom made %d checkpoints, want 1", got-before)
	}
	r.shut()
	r.open()
	r.powerOn(r.run)
	if bytes.Equal(r.tpm.Random(16), random) {
		t.Errorf("random number %x came twice", random)
	}
	if r.slot.state.flags&stateFlagExact == 0 {
		t.Errorf("the flag did not last")
	}
}

// TestRunCannotBegin: a run that could not be written down has not begun, and
// so is not the failed run that a reset could bring back.
func TestRunCannotBegin(t *testing.T) {
	r := newRig(t)
	r.powerOn(r.run)
	r.tpm.Startup()
	r.diskFull = true
	next := [abi.RunIDSize]byte{2}
	if _, err := r.slot.powerOn(next); err == nil || errors.Is(err, errFailed) {
		t.Errorf("power-on for a new run on a full disk: %v, want an error other than errFailed", err)
	}
	r.diskFull = false
	if reply := r.powerOn(next); reply.Resumed {
		t.Errorf("power-on for the new run = %+v, want a fresh start", reply)
	}
}

// A worker lives in little memory, and its garbage collector comes rarely if at all,
// because commands leave nothing to collect.
func TestCommandsAllocateNothing(t *testing.T) {
	r := newRig(t)
	r.powerOn(r.run)
	r.tpm.Startup()
	resp, buf := make([]byte, abi.MaxPayload), make([]byte, abi.MaxPayload)
	for _, tt := range []struct {
		name string
		cmd  []byte
	}{
		{"no effect", command(0x17b, 0, nil, 0, 32)},
		{"refused", command(0x17e, 0, nil, 0)}, // PCR_Read without a selection
		{"journal", cmdExtend},
	} {
		allocs := testing.AllocsPerRun(100, func() {
			r.seq++
			if _, _, err := r.slot.execute(r.seq, 0, buf[:copy(buf, tt.cmd)], resp); err != nil {
				t.Fatal(err)
			}
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations for a command, want none", tt.name, allocs)
		}
	}
}
