// SPDX-License-Identifier: Apache-2.0

package pcie

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
)

// TestWrongAnswers: whatever a card makes of a command's completion, the command is
// answered by its own response, and executed once.
func TestWrongAnswers(t *testing.T) {
	change := func(change func(e *abi.CompletionEntry)) func(*face) {
		return func(f *face) { f.answer = func(e *abi.CompletionEntry) { f.once(e.Op, func() { change(e) }) } }
	}
	instead := func(act func(f *face)) func(*face) { // of a completion
		return func(f *face) {
			f.answer = func(e *abi.CompletionEntry) {
				f.raw = nil
				f.once(e.Op, func() { f.raw = make([]byte, abi.CompletionEntrySize); act(f) })
			}
		}
	}
	state := func(s abi.QueueState) func(*face) {
		return instead(func(f *face) { f.regs[abi.DoorbellOffset(1)+abi.DoorbellState] = s.Word() })
	}
	const never = true // comes an answer: the driver has to lose patience
	for _, tc := range []struct {
		name   string
		spoil  func(f *face)
		silent bool
	}{
		{"other number", change(func(e *abi.CompletionEntry) { e.Seq++ }), !never},
		{"the number before", change(func(e *abi.CompletionEntry) { e.Seq-- }), !never},
		{"other slot", change(func(e *abi.CompletionEntry) { e.Slot++ }), !never},
		{"other queue", change(func(e *abi.CompletionEntry) { e.Queue = 0 }), !never},
		{"other opcode", change(func(e *abi.CompletionEntry) { e.Op = abi.OpHealth }), !never},
		{"other phase", change(func(e *abi.CompletionEntry) { e.Phase = !e.Phase }), never},
		{"a byte more than a page", change(func(e *abi.CompletionEntry) { e.Length = abi.PageSize + 1 }), !never},
		{"4 GiB", change(func(e *abi.CompletionEntry) { e.Length = 1<<32 - 1 }), !never},
		{"worker lost", change(func(e *abi.CompletionEntry) { e.Status = abi.StatusLost }), !never},
		{"all ones", func(f *face) {
			f.answer = func(e *abi.CompletionEntry) {
				f.raw = nil
				f.once(e.Op, func() { f.raw = bytes.Repeat([]byte{0xff}, abi.CompletionEntrySize) })
			}
		}, !never},
		{"nothing", instead(func(*face) {}), never},
		{"interrupts and nothing else", instead(func(f *face) { f.storm(hang) }), never},
		{"interrupts before", func(f *face) {
			f.answer = func(e *abi.CompletionEntry) { f.once(e.Op, func() { f.storm(20 * time.Millisecond) }) }
		}, !never},
		{"queue is gone", state(abi.QueueState{}), !never},
		{"queue has a fault", state(abi.QueueState{Life: abi.QueueFaulted, Fault: abi.FaultAddress}), !never},
		{"queue in no state that there is", state(abi.QueueState{Life: 0xff, Fault: 0xff}), !never},
		{"unplugged: registers are all ones", instead(func(f *face) {
			for off := range f.regs {
				f.regs[off] = 0xffffffff
			}
		}), !never},
		{"hangs up", instead(func(f *face) { f.sock.Close() }), !never},
		{"twice", func(f *face) {
			f.answer = func(e *abi.CompletionEntry) { f.once(e.Op, func() { f.repeatLater(1) }) }
		}, !never},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := newBroken(t, tc.spoil)
			if tc.silent {
				b.wait = 2 * time.Second
			}
			card, err := b.open()
			if err != nil {
				t.Fatal(err)
			}
			defer card.Close()
			if err := b.use(card, 2*ringEntries); err != nil {
				t.Errorf("commands: %v", err)
			}
			if noticed := b.restarts > 0; noticed == (tc.name == "interrupts before") {
				t.Errorf("the slot was opened %d times more", b.restarts)
			}
			if b.executed != 2*ringEntries {
				t.Errorf("%d commands were executed, want %d", b.executed, 2*ringEntries)
			}
		})
	}
}

// once does something for the first command of a slot.
func (f *face) once(op abi.Opcode, do func()) {
	if op == abi.OpExecute && !f.done1 {
		f.done1 = true
		do()
	}
}

// storm interrupts for some time, or until the test is over, for no reason.
func (f *face) storm(d time.Duration) {
	raise := func() {
		for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(100 * time.Microsecond) {
			select {
			case <-f.gone:
				return
			default:
				f.fds[1].Signal()
			}
		}
	}
	if d < time.Second {
		raise()
		return
	}
	f.storms.Go(raise)
}

// repeatLater gives the next completion of a queue twice.
func (f *face) repeatLater(q int) { f.on = func(int) { f.on = nil; f.repeat(q) } }

// repeat gives the last completion of a queue once more.
func (f *face) repeat(q int) {
	at := (f.done[q] - 1) % ringEntries * abi.CompletionEntrySize
	entry := bytes.Clone(f.page(q, pageCQ)[at:][:abi.CompletionEntrySize])
	if f.done[q]%ringEntries == 0 { // the next is of the other phase
		entry[abi.CompletionPhase] ^= 1
	}
	f.complete(q, entry)
}

// TestAnswersChange: a card that changes completions and answers while they are read
// can say what it likes, and break nothing.
func TestAnswersChange(t *testing.T) {
	for range 8 {
		b := newBroken(t, func(f *face) { f.wild = true })
		b.wild, b.wait = true, 300*time.Millisecond
		b.try()
		b.recovers()
	}
}

// meddle changes bytes of the first two queues until the connection is over.
func (f *face) meddle(fd, size int) {
	mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		f.card.t.Error(err)
		return
	}
	f.storms.Go(func() {
		defer unix.Munmap(mem)
		for {
			select {
			case <-f.gone:
				return
			default:
			}
			for range 100 {
				page := rand.IntN(2)*queuePages + pageCQ + 2*rand.IntN(2) // completions or an answer
				mem[page*abi.PageSize+rand.IntN(ringEntries*abi.CompletionEntrySize)] ^= 1 << rand.IntN(8)
			}
		}
	})
}

// TestAdminAnswersTwice: an answer that comes once more is not taken for that of the
// next command, although both are alike.
func TestAdminAnswersTwice(t *testing.T) {
	twice := func(f *face) {
		f.answer = func(e *abi.CompletionEntry) {
			if e.Op == abi.OpSlotShow {
				f.repeatLater(0)
			}
		}
	}
	b := newBroken(t, twice)
	card, err := b.open()
	if err != nil {
		t.Fatal(err)
	}
	defer card.Close()
	wrong := 0
	for _, name := range []string{"a", "the second", "c", "the fourth"} {
		got, _, err := card.Command(t.Context(), &abi.Submission{Op: abi.OpSlotShow, Payload: []byte(name)})
		switch {
		case errors.Is(err, abi.ErrMalformed):
			wrong++
		case err != nil || string(got) != name:
			t.Errorf("answer %q, %v, want %q", got, err, name)
		}
	}
	if wrong == 0 {
		t.Error("no answer was refused")
	}
}
