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
	movable
	did      []string
	resumed  bool
	refuse   error // of MapPCRs and ShowBootEvidence
	last     PCRMap
	evidence string
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

func (d *diary) ShowBootEvidence(_ context.Context, evidence []byte) error {
	d.note("show")
	d.evidence = string(evidence)
	return d.refuse
}

func (d *diary) Cancel() error { d.note("cancel"); return nil }

func oneBank(t *testing.T, first byte) (m PCRMap) {
	t.Helper()
	values := slices.Repeat([][]byte{bytes.Repeat([]byte{first}, 32)}, abi.HostPCRs)
	if err := m.SetBank(abi.BankSHA256, values); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestWithHostPCRs: the map comes before the first command of whatever begins a TPM,
// and what loads one wants it at once.
func TestWithHostPCRs(t *testing.T) {
	host := oneBank(t, 1)
	var away error
	var notes []error
	d := &diary{}
	s, err := WithHostPCRs(d, func(context.Context) (PCRMap, error) { return host, away }, func(err error) { notes = append(notes, err) })
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
		want   []string // calls, two commands last
		notes  int
		fails  bool // do
		ok     bool // the commands
	}{
		{"nothing yet", func() {}, nothing, nil, 0, false, false},
		{"power-on", func() {}, powerOn, []string{"power-on", "map", "execute", "execute"}, 1, false, true},
		{"resumed", func() { d.resumed = true }, powerOn, []string{"power-on", "execute", "execute"}, 0, false, true},
		{"load", func() {}, load, []string{"load", "map", "execute", "execute"}, 1, false, true},
		{"reset", func() { host = oneBank(t, 2) }, reset, []string{"reset", "map", "execute", "execute"}, 1, false, true},
		{"no host", func() { away = errors.New("away") }, reset, []string{"reset"}, 1, false, false},
		{"it comes too late", func() { away = nil }, nothing, nil, 0, false, false},
		{"no host to load on", func() { away = errors.New("away") }, load, []string{"load"}, 1, true, false},
		{"no PCRs", func() { away, host = nil, PCRMap{} }, reset, []string{"reset"}, 1, false, false},
		{"refused", func() { host, d.refuse = oneBank(t, 3), ErrUnsupported }, reset, []string{"reset", "map"}, 1, false, false},
		{"at last", func() { d.refuse = nil }, reset, []string{"reset", "map", "execute", "execute"}, 1, false, true},
	} {
		tc.before()
		d.did, notes = nil, nil
		if err := tc.do(); (err != nil) != tc.fails {
			t.Errorf("%s: %v", tc.name, err)
		}
		s.Execute(ctx, Command{}, resp)
		n, execute := s.Execute(ctx, Command{}, resp)
		if !slices.Equal(d.did, tc.want) || (execute == nil) != tc.ok || len(notes) != tc.notes {
			t.Errorf("%s: did %v, then %v, noted %v; want %v", tc.name, d.did, execute, notes, tc.want)
		}
		if !tc.ok && (n != 10 || !errors.Is(execute, ErrFailed) || !bytes.Equal(resp[:n], rcFailure[:])) {
			t.Errorf("%s: Execute = %x, %v, want TPM_RC_FAILURE", tc.name, resp[:n], execute)
		}
		if len(notes) == 1 && (notes[0] == nil) != tc.ok {
			t.Errorf("%s: noted %v", tc.name, notes)
		}
		if tc.ok && tc.name != "resumed" && d.last != host {
			t.Errorf("%s: other PCRs than the host's", tc.name)
		}
	}
}

// TestWithBootEvidence: a TPM shows what the host says, and serves without.
func TestWithBootEvidence(t *testing.T) {
	var away error
	var notes []error
	d := &diary{}
	s, err := WithBootEvidence(d, func(_ context.Context, run RunID) ([]byte, error) { return run[:1], away },
		func(err error) { notes = append(notes, err) })
	if err != nil {
		t.Fatal(err)
	}
	ctx, resp := t.Context(), make([]byte, MaxTransfer)
	run := func(n byte) func() {
		return func() {
			if _, err := s.PowerOn(ctx, RunID{n}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tc := range []struct {
		name  string
		do    func()
		want  []string
		shown string
		notes int
		ok    bool
	}{
		{"power-on", run('a'), []string{"power-on", "show", "execute", "execute"}, "a", 1, true},
		{"reset", func() { s.Reset(ctx) }, []string{"reset", "show", "execute", "execute"}, "a", 1, true},
		{"load", func() { s.(StateMover).LoadState(ctx, RunID{'b'}, SavedState{}) }, []string{"load", "execute", "execute"}, "a", 0, true},
		{"reset after it", func() { s.Reset(ctx) }, []string{"reset", "show", "execute", "execute"}, "b", 1, true},
		{"no host", func() { away = errors.New("away"); run('c')() }, []string{"power-on", "execute", "execute"}, "b", 1, false},
		{"refused", func() { away, d.refuse = nil, ErrUnsupported; run('d')() }, []string{"power-on", "show", "execute", "execute"}, "d", 1, false},
		{"resumed", func() { d.resumed = true; run('d')() }, []string{"power-on", "execute", "execute"}, "d", 0, true},
	} {
		d.did, notes = nil, nil
		tc.do()
		s.Execute(ctx, Command{}, resp)
		_, err := s.Execute(ctx, Command{}, resp)
		if err != nil || !slices.Equal(d.did, tc.want) || d.evidence != tc.shown || len(notes) != tc.notes {
			t.Errorf("%s: did %v, shows %q, noted %v, %v; want %v", tc.name, d.did, d.evidence, notes, err, tc.want)
		}
		if len(notes) == 1 && (notes[0] == nil) != tc.ok {
			t.Errorf("%s: noted %v", tc.name, notes)
		}
	}
}

// TestHostThatHangs: only the command waits for the host, Cancel ends the wait,
// and the question is asked again.
func TestHostThatHangs(t *testing.T) {
	asked := make(chan struct{})
	hangs := true
	host := oneBank(t, 1)
	d := &diary{}
	s, err := WithHostPCRs(d, func(ctx context.Context) (PCRMap, error) {
		asked <- struct{}{}
		if hangs {
			<-ctx.Done()
		}
		return host, ctx.Err()
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.PowerOn(t.Context(), RunID{1}); err != nil {
		t.Fatal(err)
	}
	execute := func(then func() error) error {
		done := make(chan error)
		go func() {
			_, err := s.Execute(t.Context(), Command{}, make([]byte, MaxTransfer))
			done <- err
		}()
		<-asked
		if err := then(); err != nil {
			t.Error(err)
		}
		return <-done
	}
	if err := execute(s.Cancel); !errors.Is(err, ErrCanceled) {
		t.Errorf("Execute, canceled: %v, want ErrCanceled", err)
	}
	hangs = false
	if err := execute(func() error { return nil }); err != nil || d.last != host {
		t.Errorf("Execute then: %v", err)
	}
	if err := s.Cancel(); err != nil || d.did[len(d.did)-1] != "cancel" {
		t.Errorf("Cancel of the slot's command: %v, %v", d.did, err)
	}
}

func TestToldSlotWantsSlotsThatCan(t *testing.T) {
	if _, err := WithHostPCRs(struct{ Slot }{}, nil, nil); !errors.Is(err, ErrUnsupported) {
		t.Errorf("a slot that maps nothing: %v, want ErrUnsupported", err)
	}
	if _, err := WithBootEvidence(struct{ Slot }{}, nil, nil); !errors.Is(err, ErrUnsupported) {
		t.Errorf("a slot that shows nothing: %v, want ErrUnsupported", err)
	}
}
