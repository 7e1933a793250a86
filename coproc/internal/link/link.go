// SPDX-License-Identifier: Apache-2.0

package link

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

// sendTimeout bounds Send. There is always room for one submission, so it is
// met only if the worker's side has tampered with the socket.
const sendTimeout = 10 * time.Second

// Link is the driver's end of a worker's two sockets. Send, Receive, Wipe and
// Close belong to one goroutine at a time; Cancel and Shutdown may be called by
// any.
//
// The data socket is used with blocking system calls and not through the
// runtime's poller: a wake-up goes straight to the waiting thread, which
// halves the time of a short command.
type Link struct {
	data    int
	timeout time.Duration // receive timeout set on data
	buf     [abi.MaxMessage + 1]byte
	used    int // bytes of buf that the last command or response is in

	mu    sync.Mutex // guards what follows, and the life of data
	ctl   int
	ended bool
}

// Pair makes both sockets and gives the worker's two ends beside the link.
func Pair() (l *Link, data, ctl int, err error) {
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
	if l, err = New(d[0], c[0]); err != nil {
		unix.Close(d[1])
		unix.Close(c[1])
		return nil, 0, 0, err
	}
	return l, d[1], c[1], nil
}

func seqpacketPair() ([2]int, error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return p, fmt.Errorf("socketpair: %w", err)
	}
	return p, nil
}

// New makes a link of two sockets that came from somewhere else. They are the
// link's then, also if it fails.
func New(data, ctl int) (*Link, error) {
	err := errors.Join(checkSocket(data), checkSocket(ctl))
	if err == nil {
		err = prepare(data)
	}
	if err != nil {
		unix.Close(data)
		unix.Close(ctl)
		return nil, err
	}
	return &Link{data: data, ctl: ctl}, nil
}

// checkSocket checks that fd is what a slot channel is made of. The timeouts
// that keep a silent peer from stopping us exist for sockets only.
func checkSocket(fd int) error {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return fmt.Errorf("slot channel: %w", err)
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || domain != unix.AF_UNIX || kind != unix.SOCK_SEQPACKET {
		return fmt.Errorf("slot channel is not a packet socket: %w", abi.ErrMalformed)
	}
	return nil
}

// prepare makes the data socket wait, and not for ever.
func prepare(data int) error {
	if err := unix.SetNonblock(data, false); err != nil {
		return fmt.Errorf("slot channel: %w", err)
	}
	tv := unix.NsecToTimeval(sendTimeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(data, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv); err != nil {
		return fmt.Errorf("set send timeout: %w", err)
	}
	return nil
}

// Send sends one submission.
func (l *Link) Send(sub *abi.Submission) error {
	msg := abi.AppendSubmission(l.buf[:0], sub)
	l.used = len(msg)
	for {
		err := unix.Sendto(l.data, msg, unix.MSG_NOSIGNAL, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Receive waits for the completion of sub. Its payload aliases the link's
// buffer until the next call. io.EOF means that the worker is gone.
func (l *Link) Receive(sub *abi.Submission, timeout time.Duration) (abi.Completion, error) {
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
func (l *Link) setTimeout(d time.Duration) error {
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
func (l *Link) Wipe() {
	clear(l.buf[:l.used])
	l.used = 0
}

// Cancel tells the worker to cancel the command seq. It never blocks: with a
// full control channel a cancel is on its way already.
func (l *Link) Cancel(seq uint64) error {
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
func (l *Link) Shutdown() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		unix.Shutdown(l.data, unix.SHUT_RDWR)
	}
}

// Close closes both sockets. It is idempotent.
func (l *Link) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return
	}
	l.ended = true
	unix.Close(l.data)
	unix.Close(l.ctl)
}
