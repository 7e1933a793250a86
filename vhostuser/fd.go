// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// fd owns one file descriptor that came over the socket or was made here. It
// is not an os.File because a ring polls its descriptors with poll(2) itself:
// one wake-up less than by way of the runtime's poller.
//
// A nil *fd is legal and stands for "none". Not safe for concurrent use.
type fd struct{ n int }

// close releases the descriptor; a second call does nothing.
func (f *fd) close() {
	if f == nil || f.n < 0 {
		return
	}
	// Linux always releases the number, even when close reports an error.
	_ = unix.Close(f.n)
	f.n = -1
}

// num returns the descriptor, or -1, which poll(2) skips.
func (f *fd) num() int {
	if f == nil {
		return -1
	}
	return f.n
}

var errNotEvent = errors.New("descriptor is neither an eventfd nor a pipe")

// asEvent checks that f can serve as kick, call or error notifier, and makes
// it non-blocking. The spec allows eventfds and pipes. Regular files and
// devices are always "readable" and would make a ring spin. An eventfd is an
// anonymous inode: the kernel reports no file type for it.
func (f *fd) asEvent() error {
	var st unix.Stat_t
	if err := unix.Fstat(f.n, &st); err != nil {
		return fmt.Errorf("fstat: %w", err)
	}
	if kind := st.Mode & unix.S_IFMT; kind != 0 && kind != unix.S_IFIFO {
		return errNotEvent
	}
	if err := unix.SetNonblock(f.n, true); err != nil {
		return fmt.Errorf("set non-blocking: %w", err)
	}
	return nil
}

// drainEvent consumes what is pending on an event descriptor. It reports
// false if the descriptor is dead (closed pipe, not readable) and must not be
// polled any more. buf is scratch space of 8 bytes.
func drainEvent(f *fd, buf []byte) bool {
	for {
		n, err := unix.Read(f.n, buf)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return true
		default:
			return err == nil && n > 0
		}
	}
}

// signalEvent adds one event. A full eventfd or pipe already says that
// something is pending, and a dead one has nobody to tell: both are ignored.
// buf is scratch space of 8 bytes.
func signalEvent(f *fd, buf []byte) {
	if f.num() < 0 {
		return
	}
	order.PutUint64(buf, 1)
	for {
		if _, err := unix.Write(f.n, buf); err != unix.EINTR {
			return
		}
	}
}

// newEvent makes a private eventfd.
func newEvent() (*fd, error) {
	n, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	return &fd{n}, nil
}
