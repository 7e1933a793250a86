// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
)

// ghost is a worker that is powered on and then dies over each command, until
// it is told to live.
type ghost struct {
	alive    bool
	last     uint64   // number of the last command that it says it has done
	canceled []uint64 // numbers of the commands that it was told to cancel
}

func (g *ghost) Identity() abi.Identity         { return abi.Identity{} }
func (g *ghost) Send(*abi.Submission) error     { return nil }
func (g *ghost) Wipe()                          {}
func (g *ghost) Cancel(seq uint64) error        { g.canceled = append(g.canceled, seq); return nil }
func (g *ghost) Shutdown()                      {}
func (g *ghost) Stop(time.Duration) error       { return nil }
func (g *ghost) Kill() string                   { return "laid" }
func (g *ghost) answer(b []byte) abi.Completion { return abi.Completion{Payload: b} }

func (g *ghost) Receive(sub *abi.Submission, _ time.Duration) (abi.Completion, error) {
	switch {
	case sub.Op == abi.OpPowerOn:
		return g.answer(abi.AppendPowerOnReply(nil, abi.PowerOnReply{Resumed: true, LastSeq: g.last})), nil
	case g.alive:
		return g.answer([]byte("answer")), nil
	}
	return abi.Completion{}, io.EOF
}

// haunted gives a slot that is powered on, over a worker that dies at the next
// command. start starts the others.
func haunted(t *testing.T, patience time.Duration, start func() (Worker, error)) *Slot {
	t.Helper()
	s := New(Config{
		Name: "default", Logger: hclog.NewNullLogger(), Timeout: time.Minute, CancelGrace: time.Minute,
		AdminTimeout: time.Minute, Patience: patience, Start: start, Release: func(*Slot) {},
	}, &ghost{})
	t.Cleanup(func() { s.Close() })
	if _, err := s.PowerOn(t.Context(), coproc.RunID{1}); err != nil {
		t.Fatal(err)
	}
	return s
}

var errAway = errors.New("away")

// TestPatience: a card that is away for some time and comes back costs the
// guest nothing but that time.
func TestPatience(t *testing.T) {
	tries := 0
	s := haunted(t, time.Minute, func() (Worker, error) {
		if tries++; tries < 4 {
			return nil, errAway
		}
		return &ghost{alive: true}, nil
	})
	resp := make([]byte, coproc.MaxTransfer)
	n, err := s.Execute(t.Context(), coproc.Command{Bytes: []byte("command")}, resp)
	if err != nil || string(resp[:n]) != "answer" || tries != 4 {
		t.Errorf("Execute = %q, %v after %d tries", resp[:n], err, tries)
	}
}

// TestCancelWithoutWorker: a cancel that comes when a command's worker is dead and
// the next one is not there yet reaches that one, and no later command.
func TestCancelWithoutWorker(t *testing.T) {
	var s *Slot
	next := &ghost{alive: true}
	s = haunted(t, time.Minute, func() (Worker, error) { return next, s.Cancel() })
	resp := make([]byte, coproc.MaxTransfer)
	for range 2 {
		n, err := s.Execute(t.Context(), coproc.Command{Bytes: []byte("command")}, resp)
		if err != nil || string(resp[:n]) != "answer" {
			t.Errorf("Execute = %q, %v", resp[:n], err)
		}
	}
	if !slices.Equal(next.canceled, []uint64{1}) {
		t.Errorf("canceled %v, want 1", next.canceled)
	}
}

// TestPatienceEnds: a card that stays away fails the slot; a cause that does
// not go away by itself is not tried again.
func TestPatienceEnds(t *testing.T) {
	for _, tc := range []struct {
		cause error
		once  bool
	}{
		{errAway, false}, {coproc.ErrInUse, false}, {coproc.ErrTimeout, false},
		{coproc.ErrDenied, true}, {coproc.ErrNotFound, true}, {coproc.ErrRollback, true},
		{coproc.ErrLocked, true}, {coproc.ErrForeign, true}, {coproc.ErrWrongKey, true},
	} {
		tries := 0
		s := haunted(t, time.Second, func() (Worker, error) { tries++; return nil, tc.cause })
		resp := make([]byte, coproc.MaxTransfer)
		n, err := s.Execute(t.Context(), coproc.Command{Bytes: []byte("command")}, resp)
		if !errors.Is(err, coproc.ErrFailed) || !errors.Is(err, tc.cause) || n != 10 {
			t.Errorf("%v: Execute = %x, %v, want TPM_RC_FAILURE and ErrFailed", tc.cause, resp[:n], err)
		}
		if (tries == 1) != tc.once {
			t.Errorf("%v: %d tries, want only one: %t", tc.cause, tries, tc.once)
		}
	}
}

// TestDoneButNeverAnswered: a worker that says that it has done the command, and
// dies each time that it is asked for the answer, does not keep the guest for ever.
func TestDoneButNeverAnswered(t *testing.T) {
	asked := 0
	s := haunted(t, time.Minute, func() (Worker, error) { asked++; return &ghost{last: 1}, nil })
	time.AfterFunc(20*time.Second, func() { s.Close() }) // a hang is an error then
	resp := make([]byte, coproc.MaxTransfer)
	n, err := s.Execute(t.Context(), coproc.Command{Bytes: []byte("command")}, resp)
	if err != nil || n != 10 || asked > 2*maxLosses {
		t.Errorf("Execute = %x, %v after %d workers, want TPM_RC_FAILURE", resp[:n], err, asked)
	}
}

// TestCommandsToll: a command is refused when it has killed two workers of a card
// that lives. What dies with its card does not count, unless it never ends.
func TestCommandsToll(t *testing.T) {
	for _, tc := range []struct {
		name   string
		lives  string // of the worker that the command meets first, and of the next ones
		alive  int    // the worker that lives, counted from 0
		asks   int    // workers that the command meets
		answer bool
	}{
		{"it kills one", "aa", 1, 2, true},
		{"it kills two", "aaa", 2, 2, false},
		{"the card ends under it", "ab", 1, 2, true},
		{"the card ends under it four times", "abcde", 4, 5, true},
		{"it kills one, then the card ends", "aabc", 3, 4, true},
		{"the card ends, then it kills one", "abb", 2, 3, true},
		{"the card ends between two that it kills", "aabbc", 4, 3, false},
		{"the card ends again and again", "abcdefghijklmnopqrstuvwxyz", 25, maxLosses, false},
	} {
		met := 0
		s := haunted(t, time.Minute, func() (Worker, error) {
			met++
			return &ghost{alive: met == tc.alive}, nil
		})
		s.cfg.Life = func() uint64 { return uint64(tc.lives[met]) }
		resp := make([]byte, coproc.MaxTransfer)
		n, err := s.Execute(t.Context(), coproc.Command{Bytes: []byte("command")}, resp)
		want := []byte("answer")
		if !tc.answer {
			want = []byte{0x80, 0x01, 0, 0, 0, 10, 0, 0, 0x01, 0x01} // TPM_RC_FAILURE
		}
		if err != nil || !bytes.Equal(resp[:n], want) {
			t.Errorf("%s: Execute = %x, %v, want %x", tc.name, resp[:n], err, want)
		}
		// The last worker of a command that is refused has not met it.
		if got := met + 1; tc.answer && got != tc.asks || !tc.answer && got != tc.asks+1 {
			t.Errorf("%s: %d workers, want %d to meet the command", tc.name, got, tc.asks)
		}
	}
}

// TestOpErrorKeepsCauses: an error of the card under others loses neither its
// status nor the others.
func TestOpErrorKeepsCauses(t *testing.T) {
	inner := &coproc.Error{Op: "identify", Slot: "x", Status: abi.StatusForeign, Err: coproc.ErrForeign}
	for _, err := range []error{inner, fmt.Errorf("around: %w: %w", coproc.ErrFailed, inner)} {
		got := OpError("execute", "x", err)
		e, ok := errors.AsType[*coproc.Error](got)
		if !ok || e.Op != "execute" || e.Status != abi.StatusForeign || !errors.Is(got, coproc.ErrForeign) ||
			errors.Is(err, coproc.ErrFailed) != errors.Is(got, coproc.ErrFailed) {
			t.Errorf("OpError(%v) = %v", err, got)
		}
	}
	if OpError("execute", "x", nil) != nil {
		t.Error("OpError of no error is one")
	}
}
