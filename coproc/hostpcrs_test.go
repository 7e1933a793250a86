// SPDX-License-Identifier: Apache-2.0

package coproc

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"

	"hwvtpm/coproc/abi"
)

// diary is a slot that writes down what it is asked for.
type diary struct {
	mappable
	did     []string
	resumed bool
	refuse  error // of MapPCRs
	last    PCRMap
}

func (d *diary) note(what string) { d.did = append(d.did, what) }

func (d *diary) PowerOn(context.Context, RunID) (PowerOnResult, error) {
	d.note("power-on")
	return PowerOnResult{Resumed: d.resumed}, nil
}

func (d *diary) LoadState(context.Context, RunID, SavedState) (PowerOnResult, error) {
	d.note("load")
	return PowerOnResult{Resumed: true}, nil
}

func (d *diary) Reset(context.Context) error { d.note("reset"); return nil }

func (d *diary) Execute(context.Context, Command, []byte) (int, error) {
	d.note("execute")
	return 10, nil
}

func (d *diary) MapPCRs(_ context.Context, m PCRMap) error {
	d.note("map")
	d.last = m
	return d.refuse
}

func oneBank(t *testing.T, first byte) (m PCRMap) {
	t.Helper()
	values := slices.Repeat([][]byte{bytes.Repeat([]byte{first}, 32)}, abi.HostPCRs)
	if err := m.SetBank(abi.BankSHA256, values); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestWithHostPCRs: the map comes between whatever begins a TPM and its first command.
func TestWithHostPCRs(t *testing.T) {
	host := oneBank(t, 1)
	var away error
	d := &diary{}
	s, err := WithHostPCRs(d, func(context.Context) (PCRMap, error) { return host, away })
	if err != nil {
		t.Fatal(err)
	}
	mover := s.(StateMover)
	ctx, resp := t.Context(), make([]byte, MaxTransfer)
	powerOn := func() error { _, err := s.PowerOn(ctx, RunID{1}); return err }
	load := func() error { _, err := mover.LoadState(ctx, RunID{2}, SavedState{}); return err }
	reset := func() error { return s.Reset(ctx) }
	nothing := func() error { return nil }
	for _, tc := range []struct {
		name   string
		before func()
		do     func() error
		want   []string // calls, a command last
		ok     bool
	}{
		{"nothing yet", func() {}, nothing, nil, false},
		{"power-on", func() {}, powerOn, []string{"power-on", "map", "execute"}, true},
		{"resumed", func() { d.resumed = true }, powerOn, []string{"power-on", "execute"}, true},
		{"load", func() {}, load, []string{"load", "map", "execute"}, true},
		{"reset", func() { host = oneBank(t, 2) }, reset, []string{"reset", "map", "execute"}, true},
		{"no host", func() { away = errors.New("away") }, reset, []string{"reset"}, false},
		{"still none", func() {}, load, []string{"load"}, false},
		{"no PCRs", func() { away, host = nil, PCRMap{} }, reset, []string{"reset"}, false},
		{"refused", func() { host, d.refuse = oneBank(t, 3), ErrUnsupported }, reset, []string{"reset", "map"}, false},
		{"at last", func() { d.refuse = nil }, reset, []string{"reset", "map", "execute"}, true},
	} {
		tc.before()
		d.did = nil
		err := tc.do()
		n, execute := s.Execute(ctx, Command{}, resp)
		if !slices.Equal(d.did, tc.want) || (execute == nil) != tc.ok {
			t.Errorf("%s: did %v, %v, then %v; want %v", tc.name, d.did, err, execute, tc.want)
		}
		if !tc.ok && (n != 10 || !errors.Is(execute, ErrFailed) || !bytes.Equal(resp[:n], rcFailure[:])) {
			t.Errorf("%s: Execute = %x, %v, want TPM_RC_FAILURE", tc.name, resp[:n], execute)
		}
		if tc.ok && d.last.Banks() != 0 && tc.name != "resumed" && d.last != host {
			t.Errorf("%s: other PCRs than the host's", tc.name)
		}
	}
}

func TestWithHostPCRsWantsAMapper(t *testing.T) {
	if _, err := WithHostPCRs(struct{ Slot }{}, nil); !errors.Is(err, ErrUnsupported) {
		t.Errorf("a slot that maps nothing: %v, want ErrUnsupported", err)
	}
}
