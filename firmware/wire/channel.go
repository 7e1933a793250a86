// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"hwvtpm/internal/unixsock"
)

// MaxDescriptors is how many descriptors may come with a message.
const MaxDescriptors = 4

// NewChannel makes a supervisor channel and gives both ends, which the caller
// owns.
func NewChannel() (card, worker int, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, fmt.Errorf("make supervisor channel: %w", err)
	}
	return p[0], p[1], nil
}

// Send sends one message, with descriptors, which stay the caller's. It blocks
// as the socket does. An EPIPE is io.EOF: the other side is gone.
func Send(fd int, msg []byte, fds ...int) error {
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	for {
		err := unix.Sendmsg(fd, msg, rights, nil, unix.MSG_NOSIGNAL)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET):
			return io.EOF
		case err != nil:
			return fmt.Errorf("send to supervisor channel: %w", err)
		}
		return nil
	}
}

// Receive receives one message into b, which should have room for MaxMessage
// bytes, and the descriptors that came with it, which are the caller's from then
// on. It blocks as the socket does. io.EOF: the other side is gone. On any error
// no descriptor is left open.
func Receive(fd int, b []byte) (n int, fds []int, err error) {
	var oob [64]byte // CmsgSpace of MaxDescriptors, and more, to notice what is too much
	var size, flags int
	for {
		n, size, flags, _, err = unix.Recvmsg(fd, b, oob[:], unix.MSG_CMSG_CLOEXEC)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if errors.Is(err, unix.ECONNRESET) {
		return 0, nil, io.EOF
	}
	if err != nil {
		return 0, nil, fmt.Errorf("receive from supervisor channel: %w", err)
	}
	fds, err = unixsock.Rights(oob[:size])
	switch {
	case err != nil:
		err = fmt.Errorf("%w: %w", err, ErrMalformed)
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 || len(fds) > MaxDescriptors:
		err = fmt.Errorf("message with %d descriptors does not fit: %w", len(fds), ErrMalformed)
	case n == 0:
		err = io.EOF
	}
	if err != nil {
		CloseAll(fds)
		return 0, nil, err
	}
	return n, fds, nil
}

// CloseAll closes descriptors.
func CloseAll(fds []int) {
	unixsock.CloseAll(fds)
}
