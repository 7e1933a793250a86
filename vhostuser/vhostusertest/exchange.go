// SPDX-License-Identifier: Apache-2.0

package vhostusertest

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// ErrTimeout: the back-end did not use the chain, or did not call, in time.
var ErrTimeout = errors.New("vhostusertest: timeout")

// ErrMixed: Exchange and ExchangeInto keep different books of the ring; use
// one of them until the next Restart.
var ErrMixed = errors.New("vhostusertest: Exchange after ExchangeInto without Restart")

// Exchange offers req and respCap writable bytes as one chain, kicks if the
// back-end asks for it, waits for the call, and returns what was written.
func (f *Frontend) Exchange(req []byte, respCap int) ([]byte, error) {
	if f.fast != nil {
		return nil, ErrMixed
	}
	var readable [][]byte
	if len(req) > 0 {
		readable = [][]byte{req}
	}
	tok, err := f.driver.Add(readable, []int{respCap}, f.opts.Indirect)
	if err != nil {
		return nil, err
	}
	f.KickIfNeeded()
	got, _, resp, err := f.Await()
	if err != nil {
		return nil, err
	}
	if got != int(tok) {
		return nil, fmt.Errorf("vhostusertest: chain %d came back, want %d", got, tok)
	}
	return resp, nil
}

// KickIfNeeded kicks if the device wants to be notified of what was added.
func (f *Frontend) KickIfNeeded() {
	if f.driver.NeedKick() {
		Signal(f.Kick)
	}
}

// Await waits for the next used chain.
func (f *Frontend) Await() (token int, written uint32, resp []byte, err error) {
	deadline := time.Now().Add(f.opts.Timeout)
	for {
		if tok, n, resp, ok := f.driver.Poll(); ok {
			return int(tok), n, resp, nil
		}
		if err := f.driver.Err(); err != nil {
			return 0, 0, nil, err
		}
		if f.driver.EnableCall() {
			continue
		}
		if err := WaitEvent(f.Call, time.Until(deadline)); err != nil {
			return 0, 0, nil, err
		}
	}
}

// Signal adds one event to an eventfd.
func Signal(fd int) {
	var b [8]byte
	order.PutUint64(b[:], 1)
	_, _ = unix.Write(fd, b[:])
}

// WaitEvent waits until an eventfd has an event, and consumes it.
func WaitEvent(fd int, timeout time.Duration) error {
	var b [8]byte
	deadline := time.Now().Add(timeout)
	for {
		fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds[:], int(max(0, time.Until(deadline).Milliseconds())))
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return fmt.Errorf("vhostusertest: poll: %w", err)
		case n == 0:
			return ErrTimeout
		}
		if _, err := unix.Read(fd, b[:]); err == unix.EAGAIN || err == unix.EINTR {
			continue
		} else if err != nil {
			return fmt.Errorf("vhostusertest: read event: %w", err)
		}
		return nil
	}
}
