// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/internal/slot"
)

// link is the driver's end of a worker's two sockets. Send and Receive
// belong to one goroutine at a time; Cancel and Shutdown may be called by any.
//
// The data socket is used with blocking system calls and not through the
// runtime's poller: a wake-up goes straight to the waiting thread, which
// halves the time of a short command.
type link struct {
	data    int
	timeout time.Duration // receive timeout set on data
	buf     [abi.MaxMessage + 1]byte
	used    int // bytes of buf that the last command or response is in

	mu    sync.Mutex // guards what follows, and the life of data
	ctl   int
	ended bool
}

// newLink makes the sockets and gives the worker's two ends.
func newLink() (l *link, data, ctl int, err error) {
	d, err := seqpacketPair()
	if err != nil {
		return nil, 0, 0, err
	}
	c, err := seqpacketPair()
	if err != nil {
		unix.Close(d[0])
		unix.Close(d[1])
		return nil, 0, 0, err
	}
	return &link{data: d[0], ctl: c[0]}, d[1], c[1], nil
}

func seqpacketPair() ([2]int, error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return p, fmt.Errorf("socketpair: %w", err)
	}
	return p, nil
}

// Send sends one submission.
func (l *link) Send(sub *abi.Submission) error {
	msg := abi.AppendSubmission(l.buf[:0], sub)
	l.used = len(msg)
	for {
		_, err := unix.Write(l.data, msg)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Receive waits for the completion of sub. Its payload aliases the link's
// buffer until the next call. io.EOF means that the worker is gone.
func (l *link) Receive(sub *abi.Submission, timeout time.Duration) (abi.Completion, error) {
	if err := l.setTimeout(timeout); err != nil {
		return abi.Completion{}, err
	}
	n, err := unix.Read(l.data, l.buf[:])
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Read(l.data, l.buf[:])
	}
	switch {
	case errors.Is(err, unix.EAGAIN):
		return abi.Completion{}, slot.ErrTimeout
	case errors.Is(err, unix.ECONNRESET), err == nil && n == 0:
		return abi.Completion{}, io.EOF
	case err != nil:
		return abi.Completion{}, fmt.Errorf("receive: %w", err)
	}
	l.used = max(l.used, n)
	c, err := abi.ParseCompletion(l.buf[:n])
	if err != nil {
		return abi.Completion{}, err
	}
	if c.Op != sub.Op || c.Seq != sub.Seq || c.Slot != sub.Slot {
		return abi.Completion{}, fmt.Errorf("completion of another submission: %w", abi.ErrMalformed)
	}
	return c, nil
}

// setTimeout sets the receive timeout if it changed, so that a run of
// commands with the same one costs no system call.
func (l *link) setTimeout(d time.Duration) error {
	if d == l.timeout {
		return nil
	}
	tv := unix.NsecToTimeval(max(d, time.Millisecond).Nanoseconds())
	if err := unix.SetsockoptTimeval(l.data, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return fmt.Errorf("set receive timeout: %w", err)
	}
	l.timeout = d
	return nil
}

// Wipe clears what the last command and its response left in the buffer.
func (l *link) Wipe() {
	clear(l.buf[:l.used])
	l.used = 0
}

// Cancel tells the worker to cancel the command seq. It never blocks: with a
// full control channel a cancel is on its way already.
func (l *link) Cancel(seq uint64) error {
	msg := abi.AppendControl(make([]byte, 0, abi.ControlSize), abi.Control{Op: abi.ControlCancel, Arg: seq})
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return nil
	}
	err := unix.Sendto(l.ctl, msg, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EPIPE) {
		return nil
	}
	return err
}

// Shutdown makes a Receive that waits return io.EOF.
func (l *link) Shutdown() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		unix.Shutdown(l.data, unix.SHUT_RDWR)
	}
}

// close closes both sockets. The caller is the one that would call Receive.
func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return
	}
	l.ended = true
	unix.Close(l.data)
	unix.Close(l.ctl)
}
