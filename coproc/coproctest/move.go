// SPDX-License-Identifier: Apache-2.0

package coproctest

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"hwvtpm/coproc"
	"hwvtpm/coproc/coproctest/tpmtest"
)

var runC = coproc.RunID{0: 0xc}

func (c *card) mover() coproc.StateMover {
	c.t.Helper()
	m, ok := c.slot.(coproc.StateMover)
	if !ok {
		c.t.Fatalf("%T is no StateMover", c.slot)
	}
	return m
}

func (c *card) saveState() coproc.SavedState {
	c.t.Helper()
	st, err := c.mover().SaveState(c.t.Context())
	if err != nil {
		c.t.Fatalf("SaveState: %v", err)
	}
	return st
}

func (c *card) loadState(run coproc.RunID, st coproc.SavedState) {
	c.t.Helper()
	r, err := c.mover().LoadState(c.t.Context(), run, st)
	if err != nil || !r.Resumed {
		c.t.Fatalf("LoadState = %+v, %v", r, err)
	}
}

// testMoveState: a machine is saved and goes on in another process.
func testMoveState(_ *testing.T, c *card) {
	c.start()
	w := makeWorld(c)
	st := c.saveState()
	w.checkAll(c) // it goes on
	c.reopen()
	c.loadState(runB, st)
	w.checkAll(c)
	c.tpm.Extend(worldPCR, "later")
	w.pcr = c.tpm.PCR(worldPCR)
	c.reopen()
	c.powerOn(runB, true)
	w.checkAll(c)
}

// testMoveStateBack: a migration that fails goes back to its source, whether or
// not its destination has loaded the state already.
func testMoveStateBack(_ *testing.T, c *card) {
	c.start()
	w := makeWorld(c)
	st := c.saveState()
	c.reopen()
	c.loadState(runA, st)
	w.checkAll(c)
	st = c.saveState()
	c.reopen()
	c.loadState(runB, st)
	c.reopen()
	c.loadState(runA, st)
	w.checkAll(c)
	c.reopen()
	c.powerOn(runA, true)
	w.checkAll(c)
}

// testMoveStateInRun: a machine that runs goes back to a snapshot of itself.
func testMoveStateInRun(t *testing.T, c *card) {
	c.start()
	w := makeWorld(c)
	st := c.saveState()
	c.tpm.Extend(worldPCR, "undone")
	random := c.tpm.Random(16)
	c.loadState(runB, st)
	w.checkAll(c)
	if got := c.tpm.Random(16); bytes.Equal(got, random) {
		t.Errorf("random numbers repeat")
	}
}

// testMoveStateRollback: a TPM that was used is not set back, and is none the
// worse for the attempt.
func testMoveStateRollback(t *testing.T, c *card) {
	c.start()
	w := makeWorld(c)
	st := c.saveState()
	w.nv = []byte("kept for now!")
	c.tpm.WriteNV(tpmtest.NVBase, w.nv)
	for _, run := range []coproc.RunID{runA, runB, runC} {
		_, err := c.mover().LoadState(t.Context(), run, st)
		if !errors.Is(err, coproc.ErrRollback) || !strings.Contains(err.Error(), "used since") {
			t.Errorf("LoadState of an older state = %v, want ErrRollback and why", err)
		}
	}
	w.checkAll(c)
	c.reopen()
	if _, err := c.mover().LoadState(t.Context(), runB, st); !errors.Is(err, coproc.ErrRollback) {
		t.Errorf("LoadState of an older state = %v, want ErrRollback", err)
	}
	c.powerOn(runA, true)
	w.checkAll(c)
}

// testMoveStateRefused: what is no state of this slot is refused.
func testMoveStateRefused(t *testing.T, c *card) {
	if _, err := c.mover().SaveState(t.Context()); err == nil {
		t.Errorf("SaveState before power-on succeeded")
	}
	c.start()
	w := makeWorld(c)
	st := c.saveState()
	flipped := func(b []byte, at int) []byte {
		b = bytes.Clone(b)
		b[at] ^= 1
		return b
	}
	bad := map[string]coproc.SavedState{
		"nothing":     {},
		"one part":    {Permanent: st.Permanent},
		"swapped":     {Permanent: st.Volatile, Volatile: st.Permanent},
		"cut":         {Permanent: st.Permanent, Volatile: st.Volatile[:len(st.Volatile)-1]},
		"longer":      {Permanent: slices.Concat(st.Permanent, []byte{0}), Volatile: st.Volatile},
		"too long":    {Permanent: make([]byte, 2<<20), Volatile: st.Volatile},
		"bit flipped": {Permanent: st.Permanent, Volatile: flipped(st.Volatile, len(st.Volatile)/2)},
		"other bit":   {Permanent: flipped(st.Permanent, len(st.Permanent)-1), Volatile: st.Volatile},
	}
	for name, b := range bad {
		if _, err := c.mover().LoadState(t.Context(), runB, b); err == nil {
			t.Errorf("%s: LoadState succeeded", name)
		}
	}
	w.checkAll(c)
	c.loadState(runB, st)
	w.checkAll(c)
}
