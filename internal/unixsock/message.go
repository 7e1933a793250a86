// SPDX-License-Identifier: Apache-2.0

package unixsock

import (
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// ErrTruncated is returned for a message that has more descriptors than there was
// room for, or more bytes than a packet may have. The kernel has dropped the rest.
var ErrTruncated = errors.New("message is cut off")

// Space is the size of control data that has room for n descriptors.
func Space(n int) int { return unix.CmsgSpace(4 * n) }

// Receive reads bytes into b, and the descriptors that came with the first of
// them; oob is room for these. The descriptors are the caller's, with and without
// an error, and are closed on exec. ErrTruncated: there were more. io.EOF: the
// peer has hung up, or sent an empty packet.
func Receive(c *net.UnixConn, b, oob []byte) (n int, fds []int, err error) {
	// The net package retries EINTR and sets MSG_CMSG_CLOEXEC.
	n, size, flags, _, err := c.ReadMsgUnix(b, oob)
	fds, rightsErr := Rights(oob[:size])
	switch {
	case err != nil:
		return 0, fds, err
	case rightsErr != nil:
		return 0, fds, rightsErr
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		return 0, fds, fmt.Errorf("more than %d bytes or than there is room for descriptors: %w", len(b), ErrTruncated)
	case n == 0:
		return 0, fds, io.EOF
	}
	return n, fds, nil
}

// ReceiveFrame receives a message of a stream: it fills head, then what body gives,
// which may look at head. oob is room for the descriptors of one packet; those that came
// with the head are the caller's, and with an error there are none. io.EOF: the peer
// hung up before the first byte; io.ErrUnexpectedEOF: later.
func ReceiveFrame(c *net.UnixConn, head, oob []byte, body func() ([]byte, error)) (fds []int, err error) {
	defer func() {
		if err != nil {
			CloseAll(fds)
			fds = nil
		}
	}()
	for got := 0; got < len(head); {
		n, more, err := Receive(c, head[got:], oob)
		fds = append(fds, more...)
		if err != nil {
			return fds, EOF(err, got > 0)
		}
		got += n
	}
	b, err := body()
	if err != nil {
		return fds, err
	}
	if _, err := io.ReadFull(c, b); err != nil {
		return fds, EOF(err, true)
	}
	return fds, nil
}

// Rights gives all descriptors in control data, which the kernel wrote: a peer
// cannot forge it. Those that it gives are the caller's, also with an error.
func Rights(oob []byte) ([]int, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	blocks, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("control data: %w", err)
	}
	var all []int
	for i := range blocks {
		if blocks[i].Header.Level != unix.SOL_SOCKET || blocks[i].Header.Type != unix.SCM_RIGHTS {
			continue
		}
		fds, err := unix.ParseUnixRights(&blocks[i])
		if err != nil {
			return all, fmt.Errorf("descriptors: %w", err)
		}
		all = append(all, fds...)
	}
	return all, nil
}

// Send sends all of b, which is not empty, with descriptors that the caller keeps.
func Send(c *net.UnixConn, b []byte, fds ...int) error {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	n, _, err := c.WriteMsgUnix(b, oob, nil)
	if err == nil && n < len(b) {
		_, err = c.Write(b[n:])
	}
	return err
}

// CloseAll closes descriptors. Linux lets go of the numbers in any case.
func CloseAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// EOF turns the ways in which a peer can vanish into io.EOF or, within a message,
// io.ErrUnexpectedEOF. Other errors it leaves alone.
func EOF(err error, within bool) error {
	gone := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, unix.ECONNRESET)
	switch {
	case gone && within:
		return io.ErrUnexpectedEOF
	case gone:
		return io.EOF
	}
	return err
}
