// SPDX-License-Identifier: Apache-2.0

package vhostusertest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/internal/unixsock"
	"hwvtpm/vhostuser"
)

// Header flags.
const (
	Version   = 0x1
	Reply     = 0x4
	NeedReply = 0x8
)

var order = binary.NativeEndian

// ErrRefused: the back-end answered a message that had need_reply with a
// failure.
var ErrRefused = errors.New("vhostusertest: refused by the back-end")

// Message is a received message.
type Message struct {
	Request vhostuser.Request
	Flags   uint32
	Body    []byte
	FDs     []int // the receiver's to close
}

// Conn is the front-end's end of the socket.
type Conn struct {
	Sock    *net.UnixConn
	Timeout time.Duration // for one receive; a guard against hanging
}

// WriteRaw sends b as it is, with fds, which stay the caller's.
func (c *Conn) WriteRaw(b []byte, fds ...int) error {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	_, _, err := c.Sock.WriteMsgUnix(b, oob, nil)
	return err
}

// Encode returns the bytes of a message.
func Encode(r vhostuser.Request, flags uint32, body []byte) []byte {
	b := order.AppendUint32(nil, uint32(r))
	b = order.AppendUint32(b, flags)
	b = order.AppendUint32(b, uint32(len(body)))
	return append(b, body...)
}

// Send sends one message.
func (c *Conn) Send(r vhostuser.Request, flags uint32, body []byte, fds ...int) error {
	if err := c.WriteRaw(Encode(r, flags, body), fds...); err != nil {
		return fmt.Errorf("vhostusertest: send %v: %w", r, err)
	}
	return nil
}

// Recv receives one message; io.EOF if the back-end closed the connection.
func (c *Conn) Recv() (Message, error) {
	if err := c.Sock.SetReadDeadline(time.Now().Add(c.Timeout)); err != nil {
		return Message{}, err
	}
	head := make([]byte, 12)
	var m Message
	fds, err := unixsock.ReceiveFrame(c.Sock, head, make([]byte, unixsock.Space(8)), func() ([]byte, error) {
		m.Body = make([]byte, order.Uint32(head[8:]))
		return m.Body, nil
	})
	m.Request, m.Flags, m.FDs = vhostuser.Request(order.Uint32(head)), order.Uint32(head[4:]), fds
	return m, err
}

// Call sends a message that has a reply of its own and receives that.
func (c *Conn) Call(r vhostuser.Request, body []byte, fds ...int) (Message, error) {
	if err := c.Send(r, Version, body, fds...); err != nil {
		return Message{}, err
	}
	return c.replyTo(r)
}

func (c *Conn) replyTo(r vhostuser.Request) (Message, error) {
	m, err := c.Recv()
	if err != nil {
		return Message{}, fmt.Errorf("vhostusertest: reply to %v: %w", r, err)
	}
	if m.Request != r || m.Flags != Version|Reply {
		return Message{}, fmt.Errorf("vhostusertest: reply to %v is %v with flags %#x", r, m.Request, m.Flags)
	}
	return m, nil
}

// CallU64 is Call for a u64 reply.
func (c *Conn) CallU64(r vhostuser.Request, body []byte, fds ...int) (uint64, error) {
	m, err := c.Call(r, body, fds...)
	if err != nil {
		return 0, err
	}
	if len(m.Body) != 8 {
		return 0, fmt.Errorf("vhostusertest: reply to %v has %d bytes", r, len(m.Body))
	}
	return order.Uint64(m.Body), nil
}

// Ack sends a message with need_reply and receives the acknowledgement, which
// needs REPLY_ACK. The error wraps ErrRefused if it reports a failure.
func (c *Conn) Ack(r vhostuser.Request, body []byte, fds ...int) error {
	if err := c.Send(r, Version|NeedReply, body, fds...); err != nil {
		return err
	}
	m, err := c.replyTo(r)
	switch {
	case err != nil:
		return err
	case len(m.Body) != 8:
		return fmt.Errorf("vhostusertest: acknowledgement of %v has %d bytes", r, len(m.Body))
	case order.Uint64(m.Body) != 0:
		return fmt.Errorf("%w: %v", ErrRefused, r)
	}
	return nil
}
