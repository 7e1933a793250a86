// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/coproctest/tpmtest"
	"hwvtpm/firmware/engine"
)

// libtpms is one per process, so all tests share the engine and none of them
// is parallel.
var testEngine = sync.OnceValues(engine.New)

// newState is what a new TPM's directory holds, by name, made once: the syncs of
// the real way take most of a test's time.
var newState = sync.OnceValues(func() (map[string][]byte, error) {
	eng, err := testEngine()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "hwvtpm-firmware")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	s, err := openSlot(filepath.Join(dir, "slot"), eng, logger{w: io.Discard})
	if err != nil {
		return nil, err
	}
	s.close()
	files := map[string][]byte{}
	for _, name := range []string{stateName, keyName} {
		if files[name], err = os.ReadFile(filepath.Join(dir, "slot", name)); err != nil {
			return nil, err
		}
	}
	return files, nil
})

// crash is what a failpoint panics with.
type crash struct{}

// rig is a slot and, on the other side, a driver that opens it again and
// resubmits after a crash. Failpoints stand around every call that the slot
// makes to the TPM and to the disk: point number target is a crash.
type rig struct {
	t    testing.TB
	dir  string
	slot *slot
	tpm  *tpmtest.TPM
	run  [abi.RunIDSize]byte
	seq  uint64

	points, target int
	crashes        int
	renamed        bool // the last point passed was after a rename
	diskFull       bool
	unsure         bool // writes succeed, and nobody knows
	again          int  // after the first crash, crash this many points later
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, dir: filepath.Join(t.TempDir(), "slot"), run: [abi.RunIDSize]byte{1}}
	r.tpm = tpmtest.New(t, r.send)
	files, err := newState()
	if err != nil {
		t.Fatalf("make a TPM: %v", err)
	}
	err = os.Mkdir(r.dir, 0o700)
	for name, b := range files {
		err = errors.Join(err, os.WriteFile(filepath.Join(r.dir, name), b, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	r.open()
	t.Cleanup(func() { r.shut() })
	return r
}

func (r *rig) open() {
	r.t.Helper()
	if err := r.tryOpen(); err != nil {
		r.t.Fatalf("open slot: %v", err)
	}
}

func (r *rig) tryOpen() error {
	eng, err := testEngine()
	if err != nil {
		r.t.Fatal(err)
	}
	s, err := openSlot(r.dir, &pointTPM{tpm: eng, r: r}, logger{w: r.t.Output()})
	if err != nil {
		return err
	}
	s.store = &pointStorage{s.store.(*stateDir), r}
	r.slot = s
	return nil
}

// shut drops the slot as a kill would: nothing is saved.
func (r *rig) shut() {
	if r.slot != nil {
		r.slot.close()
		r.slot = nil
	}
}

// point is a failpoint.
func (r *rig) point() {
	r.points++
	if r.points == r.target {
		if r.again > 0 {
			r.target, r.again = r.points+r.again, 0
		}
		panic(crash{})
	}
}

// pointStorage is a directory with failpoints.
type pointStorage struct {
	*stateDir
	r *rig
}

// replace does without the syncs, which nothing here needs.
func (p *pointStorage) replace(data []byte) error {
	r, d := p.r, p.stateDir
	d.buf = data
	r.point()
	if r.diskFull {
		return errors.New("no space left on the test's device")
	}
	tmp := filepath.Join(d.path, stateTmpName)
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	r.point()
	if err := os.Rename(tmp, filepath.Join(d.path, stateName)); err != nil {
		return err
	}
	r.renamed = true
	r.point()
	r.renamed = false
	if r.unsure {
		return errUnsure
	}
	return nil
}

// survive runs f again and again until it comes through without a crash,
// opening the slot anew after each.
func (r *rig) survive(f func() error) error {
	for {
		crashed, err := r.attempt(f)
		if !crashed {
			return err
		}
		r.crashes++
		r.tear()
		r.shut()
		r.open()
		f2 := f
		f = func() error {
			if reply, err := r.slot.powerOn(r.run); err != nil || !reply.Resumed {
				r.t.Fatalf("power-on after crash at point %d: %+v, %v", r.target, reply, err)
			}
			return f2()
		}
	}
}

func (r *rig) attempt(f func() error) (crashed bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			if _, ok := p.(crash); !ok {
				panic(p)
			}
			crashed = true
		}
	}()
	return false, f()
}

// tear does to the volatile file the worst that a kill can do: what was not
// committed is half written.
func (r *rig) tear() {
	s := r.slot
	if s.vol == nil || r.renamed {
		r.renamed = false
		return
	}
	word, err := s.vol.committed()
	if err != nil {
		r.t.Fatalf("after a crash at point %d: %v", r.target, err)
	}
	place := s.vol.slot(word.serial + 1)
	rand.Read(place[:len(place)/2])
	rand.Read(s.vol.journal()[word.journal:])
}

// send is the driver: it numbers commands and resubmits after crashes.
func (r *rig) send(cmd []byte) ([]byte, error) {
	r.seq++
	resp := make([]byte, abi.MaxPayload)
	n := 0
	err := r.survive(func() (err error) {
		n, _, err = r.slot.execute(r.seq, 0, append([]byte(nil), cmd...), resp)
		return err
	})
	return resp[:n], err
}

// powerOn starts a run. Before the run is on record a crash leaves the run
// before it, so the power-on itself is repeated, not a resume.
func (r *rig) powerOn(run [abi.RunIDSize]byte) abi.PowerOnReply {
	r.t.Helper()
	for {
		var reply abi.PowerOnReply
		crashed, err := r.attempt(func() (err error) {
			reply, err = r.slot.powerOn(run)
			return err
		})
		if err != nil {
			r.t.Fatalf("power-on: %v", err)
		}
		if !crashed {
			r.run = run
			return reply
		}
		r.crashes++
		r.tear()
		r.shut()
		r.open()
	}
}

func (r *rig) reset() {
	r.t.Helper()
	if err := r.survive(func() error { return r.slot.reset() }); err != nil {
		r.t.Fatalf("reset: %v", err)
	}
}

// pointTPM is a TPM with failpoints before and after each call.
type pointTPM struct {
	tpm
	r *rig
}

func (p *pointTPM) Load(perm, vol []byte) error {
	p.r.point()
	defer p.r.point()
	return p.tpm.Load(perm, vol)
}

func (p *pointTPM) Process(locality uint8, cmd, resp []byte) (int, bool, error) {
	p.r.point()
	n, stored, err := p.tpm.Process(locality, cmd, resp)
	p.r.point()
	return n, stored, err
}

func (p *pointTPM) Hash(data []byte) error {
	p.r.point()
	defer p.r.point()
	return p.tpm.Hash(data)
}

func (p *pointTPM) Volatile(dst []byte) (int, error) {
	p.r.point()
	n, err := p.tpm.Volatile(dst)
	p.r.point()
	return n, err
}
