// SPDX-License-Identifier: Apache-2.0

package vfiouser

import (
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// message is one received message. It owns fds: what a handler does not take
// with takeFDs is closed by closeFDs. body is valid until the next receive.
type message struct {
	header
	body []byte
	fds  []*FD
}

// takeFDs moves the descriptors out of the message.
func (m *message) takeFDs() []*FD {
	fds := m.fds
	m.fds = nil
	return fds
}

func (m *message) closeFDs() {
	closeAll(m.fds)
	m.fds = nil
}

func closeAll(fds []*FD) {
	for _, f := range fds {
		f.Close()
	}
}

// conn reads and writes whole messages. One goroutine at a time may receive,
// and one may send.
type conn struct {
	sock *net.UnixConn
	head [headerSize]byte
	body [maxBody]byte
	oob  []byte
	out  []byte
}

func newConn(sock *net.UnixConn) *conn {
	return &conn{sock: sock, oob: make([]byte, unix.CmsgSpace(4*maxFDs))}
}

// receive fills m with the next message. The header is read alone, because
// descriptors come with its first byte; they are owned by m before anything
// else is looked at, and closed here on every error. io.EOF means that the
// peer hung up between two messages.
func (c *conn) receive(m *message) (err error) {
	m.fds, m.body = nil, nil
	defer func() {
		if err != nil {
			m.closeFDs()
		}
	}()
	for got := 0; got < headerSize; {
		n, err := c.receiveSome(m, c.head[got:])
		if err != nil {
			return eofWithin(err, got > 0)
		}
		got += n
	}
	if m.header, err = parseHeader(c.head[:]); err != nil {
		return err
	}
	m.body = c.body[:m.size-headerSize]
	if _, err := io.ReadFull(c.sock, m.body); err != nil {
		return eofWithin(err, true)
	}
	return nil
}

// receiveSome reads part of a header and the descriptors that come with it.
// The net package retries EINTR and sets MSG_CMSG_CLOEXEC.
func (c *conn) receiveSome(m *message, b []byte) (int, error) {
	n, oobn, flags, _, err := c.sock.ReadMsgUnix(b, c.oob)
	if oobn > 0 {
		if perr := m.adopt(c.oob[:oobn]); perr != nil {
			return 0, perr
		}
	}
	switch {
	case err != nil:
		return 0, err
	case flags&unix.MSG_CTRUNC != 0 || len(m.fds) > maxFDs:
		return 0, fmt.Errorf("more than %d descriptors with a message: %w", maxFDs, ErrProtocol)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// adopt wraps every descriptor in oob, which the kernel has written and
// installed in this process already.
func (m *message) adopt(oob []byte) error {
	blocks, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return fmt.Errorf("control data: %w", err)
	}
	for i := range blocks {
		if blocks[i].Header.Level != unix.SOL_SOCKET || blocks[i].Header.Type != unix.SCM_RIGHTS {
			continue
		}
		nums, err := unix.ParseUnixRights(&blocks[i])
		if err != nil {
			return fmt.Errorf("descriptors: %w", err)
		}
		for _, n := range nums {
			m.fds = append(m.fds, &FD{n})
		}
	}
	return nil
}

// eofWithin turns the ways a peer can vanish into io.EOF or, in the middle of
// a message, io.ErrUnexpectedEOF.
func eofWithin(err error, within bool) error {
	gone := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, unix.ECONNRESET)
	switch {
	case gone && within:
		return io.ErrUnexpectedEOF
	case gone:
		return io.EOF
	}
	return err
}

// send writes a message whose body is in two parts, with descriptors that the
// caller keeps. The size in h is set here.
func (c *conn) send(h header, body, data []byte, fds ...int) error {
	h.size = uint32(headerSize + len(body) + len(data))
	c.out = append(append(h.append(c.out[:0]), body...), data...)
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	n, _, err := c.sock.WriteMsgUnix(c.out, oob, nil)
	if err == nil && n < len(c.out) {
		_, err = c.sock.Write(c.out[n:])
	}
	clear(c.out)
	if err != nil {
		return fmt.Errorf("send %v: %w", h.command, err)
	}
	return nil
}
