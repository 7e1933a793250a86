// SPDX-License-Identifier: Apache-2.0

package vfiouser

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// FD owns one file descriptor that came over the socket. A nil *FD is legal
// and stands for none. Not safe for concurrent use.
type FD struct{ n int }

// Close releases the descriptor; a second call does nothing.
func (f *FD) Close() {
	if f == nil || f.n < 0 {
		return
	}
	// Linux always releases the number, even when close reports an error.
	_ = unix.Close(f.n)
	f.n = -1
}

// Num is the descriptor, or -1.
func (f *FD) Num() int {
	if f == nil {
		return -1
	}
	return f.n
}

var errNotEvent = errors.New("descriptor is not an eventfd")

// asEvent checks that f can be signaled without ever blocking. An eventfd is
// an anonymous inode: the kernel reports no file type for it.
func (f *FD) asEvent() error {
	var st unix.Stat_t
	if err := unix.Fstat(f.n, &st); err != nil {
		return fmt.Errorf("fstat: %w", err)
	}
	if st.Mode&unix.S_IFMT != 0 {
		return errNotEvent
	}
	if err := unix.SetNonblock(f.n, true); err != nil {
		return fmt.Errorf("set non-blocking: %w", err)
	}
	return nil
}

// Signal adds one event. A full eventfd says already that something is
// pending, and one that cannot be written has nobody to tell: both are ignored.
func (f *FD) Signal() {
	if f.Num() < 0 {
		return
	}
	var one [8]byte
	order.PutUint64(one[:], 1)
	for {
		if _, err := unix.Write(f.n, one[:]); err != unix.EINTR {
			return
		}
	}
}
