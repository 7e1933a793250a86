// SPDX-License-Identifier: Apache-2.0

package emulator

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"hwvtpm/coproc"
)

// fakeCard is a card of one slot, which moves by the rules of coproc.StateMover.
// Its TPM is a word that grows with each command.
type fakeCard struct {
	mu     sync.Mutex
	held   bool
	run    coproc.RunID
	word   string
	loaded string // what the state was loaded from, until a command runs
}

func (c *fakeCard) open(context.Context) (coproc.Slot, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held {
		return nil, coproc.ErrInUse
	}
	c.held = true
	return &cardSlot{card: c}, nil
}

type cardSlot struct {
	coproc.Slot // panics on what a test did not expect
	card        *fakeCard
}

func (s *cardSlot) PowerOn(_ context.Context, run coproc.RunID) (coproc.PowerOnResult, error) {
	c := s.card
	c.mu.Lock()
	defer c.mu.Unlock()
	c.run, c.word, c.loaded = run, "on", ""
	return coproc.PowerOnResult{}, nil
}

func (s *cardSlot) Reset(context.Context) error {
	s.card.mu.Lock()
	defer s.card.mu.Unlock()
	s.card.word = "on"
	return nil
}

func (s *cardSlot) Execute(_ context.Context, _ coproc.Command, resp []byte) (int, error) {
	c := s.card
	c.mu.Lock()
	defer c.mu.Unlock()
	c.word, c.loaded = c.word+"+", ""
	return putError(resp, 0), nil
}

func (s *cardSlot) Cancel() error { return nil }

func (s *cardSlot) Close() error {
	s.card.mu.Lock()
	defer s.card.mu.Unlock()
	s.card.held = false
	return nil
}

func (s *cardSlot) SaveState(context.Context) (coproc.SavedState, error) {
	return coproc.SavedState{Permanent: []byte("permanent"), Volatile: []byte(s.card.state())}, nil
}

func (s *cardSlot) LoadState(_ context.Context, run coproc.RunID, st coproc.SavedState) (coproc.PowerOnResult, error) {
	c := s.card
	c.mu.Lock()
	defer c.mu.Unlock()
	if want := string(st.Volatile); want != c.word && want != c.loaded || string(st.Permanent) != "permanent" {
		return coproc.PowerOnResult{}, coproc.ErrRollback
	}
	c.run, c.loaded = run, string(st.Volatile)
	return coproc.PowerOnResult{Resumed: true}, nil
}

func (c *fakeCard) state() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.word
}

func (c *fakeCard) isHeld() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.held
}

// handOver serves a source and a destination on one card, and brings the state out
// of the source and up to the destination's INIT.
func handOver(t *testing.T) (c *fakeCard, src, dst *peer) {
	t.Helper()
	c = &fakeCard{}
	src = startedPeer(t, NewHolder(c.open))
	if c.isHeld() {
		t.Error("the slot is held before INIT")
	}
	src.result(words(cmdInit, 0))
	src.rc(getRandom)
	dst = startedPeer(t, NewHolder(c.open))
	dst.result(words(cmdStop))
	for _, kind := range []BlobKind{BlobPermanent, BlobVolatile, blobSaveState} {
		head, blob := readBlob(src, kind, 0)
		if kind == blobSaveState {
			break
		}
		if head[0] != 0 || head[1] != stateEncrypted {
			t.Fatalf("GET_STATEBLOB %d: %x", kind, head)
		}
		if res := dst.result(append(words(cmdSetStateBlob, head[1], uint32(kind), uint32(len(blob))), blob...)); res != resOK {
			t.Fatalf("SET_STATEBLOB %d = %#x", kind, res)
		}
	}
	if c.isHeld() {
		t.Error("the slot is held though its state has gone out")
	}
	return c, src, dst
}

func TestHandOver(t *testing.T) {
	c, src, dst := handOver(t)
	if res := dst.result(words(cmdInit, initDeleteVolatile)); res != resOK {
		t.Fatalf("INIT at the destination = %#x", res)
	}
	if rc := dst.rc(getRandom); rc != 0 {
		t.Errorf("a command at the destination: %#x", rc)
	}
	if got := c.state(); got != "on++" {
		t.Errorf("the TPM is %q: it did not go on", got)
	}
	src.result(words(cmdShutdown))
	if got := c.state(); got != "on++" {
		t.Errorf("the TPM is %q after the source's end", got)
	}
}

// TestHandOverFails: the source goes on, by LOCK_STORAGE or without, whether or
// not the destination got as far as INIT; but not with a TPM that was used there.
func TestHandOverFails(t *testing.T) {
	for _, tc := range []struct {
		name             string
		init, used, lock bool
	}{
		{"before INIT", false, false, true},
		{"before INIT, old QEMU", false, false, false},
		{"after INIT", true, false, true},
		{"after INIT, old QEMU", true, false, false},
		{"after a command", true, true, true},
		{"after a command, old QEMU", true, true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, src, dst := handOver(t)
			if tc.init {
				dst.result(words(cmdInit, initDeleteVolatile))
			}
			if tc.used {
				dst.rc(getRandom)
				readBlob(dst, BlobVolatile, 0) // or its end would be one of the TPM
				readBlob(dst, blobSaveState, 0)
			}
			dst.hangUp()
			if tc.lock {
				want := resOK
				if tc.used {
					want = resFail
				}
				if res := src.result(words(cmdLockStorage, 300)); res != want {
					t.Errorf("LOCK_STORAGE = %#x, want %#x", res, want)
				}
			}
			wantRC, wantState := uint32(0), "on++"
			if tc.used {
				wantRC = rcFailure
			}
			if rc := src.rc(getRandom); rc != wantRC {
				t.Errorf("a command at the source: %#x, want %#x", rc, wantRC)
			}
			// The destination's hang-up shuts its TPM down, if it ran.
			if got := c.state(); !strings.HasPrefix(got, wantState) {
				t.Errorf("the TPM is %q, want %q", got, wantState)
			}
		})
	}
}

// TestHalfAState: an INIT after one part of a state does not leave it aside, in a machine
// that runs already either; and the next INIT knows nothing of it.
func TestHalfAState(t *testing.T) {
	for _, kind := range []BlobKind{BlobPermanent, BlobVolatile} {
		c := &fakeCard{}
		p := startedPeer(t, NewHolder(c.open))
		p.result(words(cmdInit, 0))
		p.result(words(cmdStop))
		if res := p.result(append(words(cmdSetStateBlob, 0, uint32(kind), 3), "old"...)); res != resOK {
			t.Fatalf("SET_STATEBLOB %d = %#x", kind, res)
		}
		if res := p.result(words(cmdInit, 0)); res != resFail {
			t.Errorf("INIT after part %d alone = %#x, want %#x", kind, res, resFail)
		}
		if rc := p.rc(getRandom); rc != rcFailure {
			t.Errorf("a command after that: %#x, want %#x", rc, rcFailure)
		}
		if res := p.result(words(cmdInit, 0)); res != resOK {
			t.Errorf("the next INIT = %#x", res)
		}
	}
}

// TestHolderLetsGoAtTheEnd: who serves nobody holds nothing.
func TestHolderLetsGoAtTheEnd(t *testing.T) {
	c := &fakeCard{}
	gone := make(chan error, 1)
	p := dialPeer(t, serveSlot(t, NewHolder(c.open), func(cfg *Config) { cfg.OnDisconnect = func(err error) { gone <- err } }))
	p.result(words(cmdInit, 0))
	p.result(words(cmdShutdown))
	<-gone
	if c.isHeld() {
		t.Error("the slot is held though the machine has gone")
	}
}

func TestClosedHolder(t *testing.T) {
	c := &fakeCard{}
	h := NewHolder(c.open)
	if _, err := h.PowerOn(t.Context(), coproc.RunID{}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := h.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if _, err := h.Execute(t.Context(), coproc.Command{}, make([]byte, 16)); !errors.Is(err, coproc.ErrClosed) || c.isHeld() {
		t.Errorf("Execute after Close: %v, held %t", err, c.isHeld())
	}
}
