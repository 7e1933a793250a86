// SPDX-License-Identifier: Apache-2.0

package coprocd

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/admin"
	"hwvtpm/coproc/coprocd/coprocdtest"
)

// openFiles counts this process's descriptors.
func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skipf("no /proc: %v", err)
	}
	return len(entries)
}

// checkFiles checks that there are not more descriptors than before, once the
// daemon, which is in this process too, has closed its own.
func checkFiles(t *testing.T, before int) {
	t.Helper()
	for end := time.Now().Add(hang); openFiles(t) > before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d descriptors are left open", openFiles(t)-before)
		}
	}
}

// null gives n descriptors that are no sockets.
func null(t *testing.T, n int) (fds []int) {
	t.Helper()
	for range n {
		fd, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
	}
	return fds
}

// pairs gives n descriptors that are packet sockets.
func pairs(t *testing.T, n int) (fds []int) {
	t.Helper()
	for range n {
		p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(p[1])
		fds = append(fds, p[0])
	}
	return fds
}

func drop(a *coprocdtest.Answer) {
	for _, fd := range a.Files {
		unix.Close(fd)
	}
	a.Files = nil
}

// TestHostileGrant: whatever comes with an open slot that is not its channel
// ends in an error, and leaves no descriptor behind.
func TestHostileGrant(t *testing.T) {
	for name, hook := range map[string]func(t *testing.T, a *coprocdtest.Answer){
		"no descriptors":  func(_ *testing.T, a *coprocdtest.Answer) { drop(a) },
		"one descriptor":  func(_ *testing.T, a *coprocdtest.Answer) { unix.Close(a.Files[1]); a.Files = a.Files[:1] },
		"three":           func(t *testing.T, a *coprocdtest.Answer) { a.Files = append(a.Files, pairs(t, 1)...) },
		"two hundred":     func(t *testing.T, a *coprocdtest.Answer) { a.Files = append(a.Files, null(t, 198)...) },
		"no sockets":      func(t *testing.T, a *coprocdtest.Answer) { drop(a); a.Files = null(t, 2) },
		"dead sockets":    func(t *testing.T, a *coprocdtest.Answer) { drop(a); a.Files = pairs(t, 2) },
		"refused, though": func(_ *testing.T, a *coprocdtest.Answer) { a.Packets[0][2] = byte(abi.StatusDenied) },
		"with a payload": func(_ *testing.T, a *coprocdtest.Answer) {
			c, _ := abi.ParseCompletion(a.Packets[0])
			c.Payload = []byte("x")
			a.Packets[0] = abi.AppendCompletion(nil, &c)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.Patience = 100 * time.Millisecond })
			r.Hook(func(sub abi.Submission, a *coprocdtest.Answer) {
				if sub.Op == abi.OpSlotOpen && len(a.Files) > 0 {
					hook(t, a)
				}
			})
			before := openFiles(t)
			if s, err := r.card.OpenSlot(t.Context(), "default"); err == nil {
				s.Close()
				t.Error("OpenSlot succeeded")
			}
			checkFiles(t, before)
		})
	}
}

// TestHostileAnswers: an answer that is not one ends the connection at once, so
// that nothing that comes later is taken for another answer.
func TestHostileAnswers(t *testing.T) {
	for name, tc := range map[string]struct {
		hook func(sub abi.Submission, a *coprocdtest.Answer)
		want error
	}{
		"other number": {func(sub abi.Submission, a *coprocdtest.Answer) {
			sub.Seq++
			a.Packets[0] = coprocdtest.Completion(sub, abi.StatusOK, nil)
		}, abi.ErrMalformed},
		"other opcode": {func(sub abi.Submission, a *coprocdtest.Answer) {
			sub.Op++
			a.Packets[0] = coprocdtest.Completion(sub, abi.StatusOK, nil)
		}, abi.ErrMalformed},
		"other slot": {func(sub abi.Submission, a *coprocdtest.Answer) {
			sub.Slot++
			a.Packets[0] = coprocdtest.Completion(sub, abi.StatusOK, nil)
		}, abi.ErrMalformed},
		"garbage":      {func(_ abi.Submission, a *coprocdtest.Answer) { a.Packets[0] = []byte("hello") }, abi.ErrMalformed},
		"oversize":     {func(_ abi.Submission, a *coprocdtest.Answer) { a.Packets[0] = make([]byte, 20000) }, abi.ErrMalformed},
		"short answer": {func(_ abi.Submission, a *coprocdtest.Answer) { a.Packets[0] = a.Packets[0][:40] }, abi.ErrMalformed},
		"descriptors": {func(_ abi.Submission, a *coprocdtest.Answer) {
			fd, _ := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			a.Files = []int{fd}
		}, abi.ErrMalformed},
		"hang-up": {func(_ abi.Submission, a *coprocdtest.Answer) { a.Packets = nil }, nil},
		"no answer": {func(_ abi.Submission, a *coprocdtest.Answer) { a.Packets, a.Hang = nil, true },
			coproc.ErrTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			s := coprocdtest.Start(t)
			conn, err := Dial(t.Context(), s.Path())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := admin.New(conn).Identify(t.Context()); err != nil {
				t.Fatal(err)
			}
			before := openFiles(t)
			s.Hook(tc.hook)
			limit := hang
			if errors.Is(tc.want, coproc.ErrTimeout) {
				limit = time.Second
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			if id, err := admin.New(conn).Identify(ctx); err == nil || tc.want != nil && !errors.Is(err, tc.want) {
				t.Errorf("Identify = %+v, %v, want %v", id, err, tc.want)
			}
			checkFiles(t, before)
		})
	}
}

// TestAnsweredTwice: a second answer is not taken for that of the next command.
func TestAnsweredTwice(t *testing.T) {
	s := coprocdtest.Start(t)
	s.Hook(func(_ abi.Submission, a *coprocdtest.Answer) { a.Packets = slices.Repeat(a.Packets, 2) })
	conn, err := Dial(t.Context(), s.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := admin.New(conn)
	if _, err := client.Identify(t.Context()); err != nil {
		t.Fatal(err)
	}
	if h, err := client.Health(t.Context()); !errors.Is(err, abi.ErrMalformed) {
		t.Errorf("Health = %+v, %v, want ErrMalformed", h, err)
	}
	if _, err := client.Health(t.Context()); err == nil {
		t.Error("the connection goes on after a wrong answer")
	}
}

// TestSilence: a daemon that takes a connection or a command and says nothing
// stops neither an open nor a guest's command for longer than was allowed.
func TestSilence(t *testing.T) {
	silent := func(op abi.Opcode) func(abi.Submission, *coprocdtest.Answer) {
		return func(sub abi.Submission, a *coprocdtest.Answer) {
			if sub.Op == op {
				drop(a)
				a.Packets, a.Hang = nil, true
			}
		}
	}
	for _, op := range []abi.Opcode{abi.OpSlotChallenge, abi.OpSlotOpen} {
		r := newRig(t, func(c *Config) { c.AdminTimeout, c.Patience = time.Second, 100*time.Millisecond })
		r.Hook(silent(op))
		if _, err := r.card.OpenSlot(t.Context(), "default"); !errors.Is(err, coproc.ErrTimeout) && !errors.Is(err, coproc.ErrInUse) {
			t.Errorf("OpenSlot with %#x unanswered: %v, want ErrTimeout", op, err)
		}
	}
	r := newRig(t, func(c *Config) { c.AdminTimeout, c.Patience = time.Second, 100*time.Millisecond })
	s := r.start(t)
	r.Hook(silent(abi.OpSlotChallenge))
	r.slot.Drop()
	if _, err := s.Execute(t.Context(), coproc.Command{Bytes: testCommand}, make([]byte, coproc.MaxTransfer)); !errors.Is(err, coproc.ErrFailed) {
		t.Errorf("Execute with a silent daemon: %v, want ErrFailed", err)
	}
}

func TestConnOfAnotherKind(t *testing.T) {
	if c, err := Dial(t.Context(), filepath.Join(t.TempDir(), "none")); err == nil {
		c.Close()
		t.Error("Dial of nothing succeeded")
	}
	s := coprocdtest.Start(t)
	conn, err := Dial(t.Context(), s.Path())
	if err != nil {
		t.Fatal(err)
	}
	long := abi.Submission{Op: abi.OpSlotShow, Payload: make([]byte, abi.MaxPayload+1)}
	if _, _, err := conn.Command(t.Context(), &long); !errors.Is(err, abi.ErrMalformed) {
		t.Errorf("Command with a long payload: %v, want ErrMalformed", err)
	}
	if err := errors.Join(conn.Close(), conn.Close()); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// TestCancel: the end of the context ends the wait.
func TestCancel(t *testing.T) {
	s := coprocdtest.Start(t)
	s.Hook(func(_ abi.Submission, a *coprocdtest.Answer) { a.Packets, a.Hang = nil, true })
	conn, err := Dial(t.Context(), s.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := admin.New(conn).Identify(ctx); !errors.Is(err, coproc.ErrCanceled) {
		t.Errorf("Identify: %v, want ErrCanceled", err)
	}
}
