// SPDX-License-Identifier: Apache-2.0

package link

import (
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/internal/slot"
)

const hang = 30 * time.Second

// pair gives a link and the worker's end of its data socket.
func pair(t *testing.T) (*Link, int) {
	t.Helper()
	l, data, ctl, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); unix.Close(data); unix.Close(ctl) })
	return l, data
}

var submission = abi.Submission{Op: abi.OpExecute, Seq: 7, Payload: []byte{1, 2, 3}}

func TestSendReceive(t *testing.T) {
	l, data := pair(t)
	if err := l.Send(&submission); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, abi.MaxMessage)
	n, err := unix.Read(data, buf)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := abi.ParseSubmission(buf[:n]); err != nil || s.Seq != 7 || len(s.Payload) != 3 {
		t.Errorf("the worker got %+v, %v", s, err)
	}
	answer(t, data, &abi.Completion{Op: abi.OpExecute, Seq: 7, Payload: []byte{9}})
	if c, err := l.Receive(&submission, hang); err != nil || len(c.Payload) != 1 {
		t.Errorf("Receive = %+v, %v", c, err)
	}
}

func answer(t *testing.T, data int, c *abi.Completion) {
	t.Helper()
	if _, err := unix.Write(data, abi.AppendCompletion(nil, c)); err != nil {
		t.Fatal(err)
	}
}

// TestHostileAnswers: what is not the answer to this submission is an error,
// and the driver gives the worker up.
func TestHostileAnswers(t *testing.T) {
	good := abi.AppendCompletion(nil, &abi.Completion{Op: abi.OpExecute, Seq: 7})
	for name, msg := range map[string][]byte{
		"other number":   abi.AppendCompletion(nil, &abi.Completion{Op: abi.OpExecute, Seq: 6}),
		"other opcode":   abi.AppendCompletion(nil, &abi.Completion{Op: abi.OpReset, Seq: 7}),
		"other slot":     abi.AppendCompletion(nil, &abi.Completion{Op: abi.OpExecute, Seq: 7, Slot: 1}),
		"garbage":        {1, 2, 3},
		"a byte more":    append(good[:len(good):len(good)], 0),
		"over the limit": make([]byte, 2*abi.MaxMessage),
	} {
		l, data := pair(t)
		if _, err := unix.Write(data, msg); err != nil {
			t.Fatal(err)
		}
		if c, err := l.Receive(&submission, hang); !errors.Is(err, abi.ErrMalformed) {
			t.Errorf("%s: Receive = %+v, %v, want ErrMalformed", name, c, err)
		}
	}
}

func TestSilenceAndEnd(t *testing.T) {
	l, data := pair(t)
	if _, err := l.Receive(&submission, time.Millisecond); !errors.Is(err, slot.ErrTimeout) {
		t.Errorf("Receive from a silent worker: %v, want ErrTimeout", err)
	}
	unix.Shutdown(data, unix.SHUT_RDWR)
	if _, err := l.Receive(&submission, hang); !errors.Is(err, io.EOF) {
		t.Errorf("Receive from a worker that is gone: %v, want EOF", err)
	}
	if err := l.Send(&submission); err == nil {
		t.Error("Send to a worker that is gone succeeded")
	}
}

func TestShutdownWakesReceive(t *testing.T) {
	l, _ := pair(t)
	time.AfterFunc(10*time.Millisecond, l.Shutdown)
	if _, err := l.Receive(&submission, hang); !errors.Is(err, io.EOF) {
		t.Errorf("Receive: %v, want EOF", err)
	}
	l.Close()
	l.Close()
	l.Shutdown()
	if err := l.Cancel(7); err != nil {
		t.Errorf("Cancel after Close: %v", err)
	}
}

// TestForeignDescriptors: a descriptor that is no packet socket is refused and
// closed, since no timeout would hold for it.
func TestForeignDescriptors(t *testing.T) {
	stream, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(stream[1])
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	dup, err := unix.FcntlInt(null.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	for name, fd := range map[string]int{"stream": stream[0], "file": dup} {
		good, err := seqpacketPair()
		if err != nil {
			t.Fatal(err)
		}
		if l, err := New(good[0], fd); err == nil {
			l.Close()
			t.Errorf("New took a %s for a control socket", name)
		}
		unix.Close(good[1])
		for _, fd := range []int{good[0], fd} {
			if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); !errors.Is(err, unix.EBADF) {
				t.Errorf("%s: descriptor %d is left open", name, fd)
			}
		}
	}
}

// TestNonblockingSocket: the flag is shared with whoever made the socket, and
// Receive waits all the same.
func TestNonblockingSocket(t *testing.T) {
	d, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	c, err := seqpacketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(d[1])
	defer unix.Close(c[1])
	l, err := New(d[0], c[0])
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	time.AfterFunc(20*time.Millisecond, func() {
		unix.Write(d[1], abi.AppendCompletion(nil, &abi.Completion{Op: abi.OpExecute, Seq: 7}))
	})
	if _, err := l.Receive(&submission, hang); err != nil {
		t.Errorf("Receive: %v", err)
	}
}
