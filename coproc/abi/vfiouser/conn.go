// SPDX-License-Identifier: Apache-2.0

package vfiouser

import (
	"errors"
	"fmt"
	"net"

	"hwvtpm/internal/unixsock"
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
	return &conn{sock: sock, oob: make([]byte, unixsock.Space(maxFDs))}
}

// receive fills m with the next message. The header is read alone, because
// descriptors come with its first byte. With an error m has none. io.EOF means that
// the peer hung up between two messages.
func (c *conn) receive(m *message) error {
	m.fds, m.body = nil, nil
	fds, err := unixsock.ReceiveFrame(c.sock, c.head[:], c.oob, func() (_ []byte, err error) {
		if m.header, err = parseHeader(c.head[:]); err != nil {
			return nil, err
		}
		m.body = c.body[:m.size-headerSize]
		return m.body, nil
	})
	for _, n := range fds {
		m.fds = append(m.fds, &FD{n})
	}
	if errors.Is(err, unixsock.ErrTruncated) {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return err
}

// send writes a message whose body is in two parts, with descriptors that the
// caller keeps. The size in h is set here.
func (c *conn) send(h header, body, data []byte, fds ...int) error {
	h.size = uint32(headerSize + len(body) + len(data))
	c.out = append(append(h.append(c.out[:0]), body...), data...)
	err := unixsock.Send(c.sock, c.out, fds...)
	clear(c.out)
	if err != nil {
		return fmt.Errorf("send %v: %w", h.command, err)
	}
	return nil
}
