// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"errors"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/abi/tpmcmd"
)

func channel(t *testing.T) (card, worker int) {
	t.Helper()
	card, worker, err := NewChannel()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(card); unix.Close(worker) })
	return card, worker
}

func openFDs(t *testing.T) int {
	t.Helper()
	e, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(e)
}

func TestDescriptorsComeAlong(t *testing.T) {
	card, worker := channel(t)
	shared, err := CreateShared()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(shared)
	if err := Send(card, []byte("message"), shared, worker); err != nil {
		t.Fatalf("Send: %v", err)
	}
	b := make([]byte, MaxMessage)
	n, fds, err := Receive(worker, b)
	if err != nil || string(b[:n]) != "message" || len(fds) != 2 {
		t.Fatalf("Receive = %q, %v, %v", b[:n], fds, err)
	}
	defer CloseAll(fds)
	for _, fd := range fds {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("descriptor flags %#x, %v, want close on exec", flags, err)
		}
	}
	mem, err := MapShared(fds[0])
	if err != nil || len(mem) != SharedSize {
		t.Fatalf("MapShared: %d bytes, %v", len(mem), err)
	}
	unix.Munmap(mem)
	if err := unix.Ftruncate(fds[0], 0); err == nil {
		t.Error("shared memory can be made smaller under the card's mapping")
	}
	if _, err := MapShared(fds[1]); !errors.Is(err, ErrMalformed) {
		t.Errorf("MapShared of a socket: %v, want ErrMalformed", err)
	}
}

// TestWhatDoesNotFit: a message that is too long, or has too many descriptors, is
// refused, and leaves none of them open.
func TestWhatDoesNotFit(t *testing.T) {
	card, worker := channel(t)
	before := openFDs(t)
	for name, send := range map[string]func() error{
		"too long":             func() error { return Send(card, make([]byte, MaxMessage+1), card) },
		"too many descriptors": func() error { return Send(card, []byte{1}, card, card, card, card, card) },
		"far too many":         func() error { return Send(card, []byte{1}, make([]int, 200)...) },
	} {
		if err := send(); err != nil {
			t.Fatalf("%s: Send: %v", name, err)
		}
		if _, fds, err := Receive(worker, make([]byte, MaxMessage)); !errors.Is(err, ErrMalformed) || fds != nil {
			t.Errorf("%s: %v, %v, want ErrMalformed", name, fds, err)
		}
	}
	if after := openFDs(t); after != before {
		t.Errorf("%d descriptors are open, %d were", after, before)
	}
}

func TestEndOfChannel(t *testing.T) {
	card, worker := channel(t)
	unix.Close(card)
	if _, _, err := Receive(worker, make([]byte, MaxMessage)); err != io.EOF {
		t.Errorf("Receive: %v, want io.EOF", err)
	}
	if err := Send(worker, AppendPark(nil)); err != io.EOF {
		t.Errorf("Send: %v, want io.EOF", err)
	}
}

func TestPage(t *testing.T) {
	fd, err := CreateShared()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	mem, err := MapShared(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	w, r := NewPage(mem), NewPage(mem)
	w.SetState(abi.SlotRunning)
	w.SetSeq(1)
	w.Touch(2)
	w.SetBusy(true)
	w.SetCounters(Counters{3, 4, 5, 6, 9})
	w.SetPosition(7, 8)
	if got := [...]uint64{uint64(r.State()), r.Seq(), uint64(r.LastActive()), r.Commands(), r.Checkpoints(),
		r.Journaled(), r.Durable(), r.Generation(), r.Epoch(), r.Unshown()}; got != [...]uint64{1, 1, 2, 3, 4, 5, 6, 7, 8, 9} || !r.Busy() {
		t.Errorf("page reads %v, busy %t", got, r.Busy())
	}
	w.SetBusy(false)
	for class := range tpmcmd.Class(tpmcmd.Classes) {
		for i := range 3 {
			w.Observe(class, tpmcmd.ResultSuccess, uint64(class)*1000+uint64(i))
		}
	}
	w.Observe(0, tpmcmd.ResultOther, 1<<63)
	for class := range tpmcmd.Class(tpmcmd.Classes) {
		h := r.ReadHistogram(class)
		n, sum := uint64(0), uint64(class)*3000+3
		for _, c := range h.Count {
			n += c
		}
		want := uint64(3)
		if class == 0 {
			want, sum = 4, sum+1<<63
		}
		if n != want || h.Sum != sum {
			t.Errorf("%v: %d commands in %d ns, want %d in %d", class, n, h.Sum, want, sum)
		}
	}
	results := r.ReadResults()
	if results[tpmcmd.ResultSuccess] != 3*tpmcmd.Classes || results[tpmcmd.ResultOther] != 1 {
		t.Errorf("results %v", results)
	}
	w.Reset()
	if r.ReadHistogram(1) != (Histogram{}) || r.Commands() != 0 || r.Seq() != 1 {
		t.Errorf("after a reset: %+v, %d commands, last number %d", r.ReadHistogram(1), r.Commands(), r.Seq())
	}
	// What a worker that was taken over writes is bounded.
	for i := range mem[:PageSize] {
		mem[i] = 0xff
	}
	if r.State() > abi.SlotFailed || !r.Busy() {
		t.Errorf("state %d, busy %t", r.State(), r.Busy())
	}
}

func BenchmarkObserve(b *testing.B) {
	mem := make([]byte, PageSize+8)
	p := NewPage(mem)
	for b.Loop() {
		p.Touch(1)
		p.Observe(tpmcmd.ClassPCR, tpmcmd.ResultSuccess, 700)
	}
}
