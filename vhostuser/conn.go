// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"fmt"
	"net"

	"hwvtpm/internal/unixsock"
)

// message is one received request. It owns fds: what a handler does not take
// with takeFD is closed by closeFDs. body is valid until the next receive.
type message struct {
	header
	body []byte
	fds  []*fd
}

func (m *message) needReply() bool { return m.flags&flagNeedReply != 0 }

// takeFD moves the first descriptor out of the message; nil if there is none.
func (m *message) takeFD() *fd {
	for i, f := range m.fds {
		if f != nil {
			m.fds[i] = nil
			return f
		}
	}
	return nil
}

func (m *message) closeFDs() {
	for _, f := range m.fds {
		f.close()
	}
	m.fds = m.fds[:0]
}

// conn reads and writes whole messages. Only the session goroutine uses it,
// except for Close of the socket, which unblocks a pending receive.
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
// the front-end hung up between two messages.
func (c *conn) receive(m *message) error {
	m.fds, m.body = m.fds[:0], nil
	fds, err := unixsock.ReceiveFrame(c.sock, c.head[:], c.oob, func() (_ []byte, err error) {
		if m.header, err = parseHeader(c.head[:]); err != nil {
			return nil, err
		}
		if err := m.header.check(); err != nil {
			return nil, err
		}
		m.body = c.body[:m.size]
		return m.body, nil
	})
	for _, n := range fds {
		m.fds = append(m.fds, &fd{n})
	}
	if errors.Is(err, unixsock.ErrTruncated) {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return err
}

// check refuses headers after which the stream cannot be followed any more.
func (h header) check() error {
	switch {
	case h.flags&flagVersionMask != flagVersion:
		return fmt.Errorf("version %d, want %d: %w", h.flags&flagVersionMask, flagVersion, ErrProtocol)
	case h.flags&flagReply != 0:
		return fmt.Errorf("reply flag in a request: %w", ErrProtocol)
	case h.size > maxBody:
		return fmt.Errorf("payload of %d bytes, limit %d: %w", h.size, maxBody, ErrProtocol)
	}
	return nil
}

// reply answers r with payload, and passes f (not taken over) if it is set.
func (c *conn) reply(r Request, payload []byte, f *fd) error {
	h := header{request: r, flags: flagVersion | flagReply, size: uint32(len(payload))}
	c.out = append(h.append(c.out[:0]), payload...)
	var fds []int
	if f != nil {
		fds = append(fds, f.n)
	}
	err := unixsock.Send(c.sock, c.out, fds...)
	if err != nil {
		return fmt.Errorf("reply to %v: %w", r, err)
	}
	return nil
}
