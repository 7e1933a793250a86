// SPDX-License-Identifier: Apache-2.0

package vfiouser

import (
	"bytes"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Client uses a device. All methods may be called from any goroutine; they
// run one at a time.
type Client struct {
	conn    *conn
	timeout time.Duration
	onEnd   func()
	maxFDs  int           // descriptors that the server takes in a message
	ended   chan struct{} // closed by the reader when err is set
	done    chan struct{} // closed by the reader when onEnd has returned
	err     error         // why the session is over
	replies chan reply

	mu sync.Mutex // one command at a time, guards what follows
	id uint16
}

// reply is what the reader hands to a caller: a copy.
type reply struct {
	header
	body []byte
}

// NewClient takes over sock and agrees on a version. timeout bounds each
// command; a server that misses it is given up. onEnd, if not nil, is called
// once when the session is over for whatever reason, from another goroutine; it
// must not call Close.
func NewClient(sock *net.UnixConn, timeout time.Duration, onEnd func()) (*Client, error) {
	c := &Client{
		conn: newConn(sock), timeout: timeout, onEnd: onEnd,
		ended: make(chan struct{}), done: make(chan struct{}), replies: make(chan reply, 1),
	}
	go c.read()
	body, err := c.call(CmdVersion, version{
		major: versionMajor, minor: versionMinor, maxFDs: maxFDs, maxTransfer: MaxTransfer,
	}.append(nil), nil)
	if err == nil {
		var v version
		v, err = parseVersion(body)
		if err == nil && (v.major != versionMajor || v.minor > versionMinor) {
			err = fmt.Errorf("server chose version %d.%d: %w", v.major, v.minor, ErrProtocol)
		}
		c.maxFDs = min(v.maxFDs, maxFDs)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// read takes the server's messages until the session is over. A server sends
// nothing but replies, one for each command, and no descriptors.
func (c *Client) read() {
	defer close(c.done)
	for {
		var m message
		err := c.conn.receive(&m)
		if err == nil && (m.flags&flagTypeMask != flagReply || len(m.fds) != 0) {
			m.closeFDs()
			err = fmt.Errorf("%v is no reply, or has descriptors: %w", m.command, ErrProtocol)
		}
		if err == nil {
			select {
			case c.replies <- reply{m.header, bytes.Clone(m.body)}:
				continue
			default:
				err = fmt.Errorf("a reply too many: %w", ErrProtocol)
			}
		}
		c.err = err
		close(c.ended)
		c.conn.sock.Close()
		if c.onEnd != nil {
			c.onEnd()
		}
		return
	}
}

// Err is nil while the session lasts.
func (c *Client) Err() error {
	select {
	case <-c.ended:
		return c.err
	default:
		return nil
	}
}

// Close ends the session and waits for its goroutine, and so for onEnd. It is
// idempotent.
func (c *Client) Close() error {
	c.conn.sock.Close() // the reader notices
	<-c.done
	return nil
}

// call sends a command and gives the body of its reply. A command that was not
// answered in time, or answered by something else, ends the session.
func (c *Client) call(cmd Command, body, data []byte, fds ...int) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.send(cmd, 0, body, data, fds...); err != nil {
		return nil, err
	}
	timer := time.NewTimer(c.timeout)
	defer timer.Stop()
	var r reply
	select {
	case r = <-c.replies:
	case <-c.ended:
		return nil, fmt.Errorf("%v: %w", cmd, c.err)
	case <-timer.C:
		c.conn.sock.Close()
		return nil, fmt.Errorf("%v: no reply in time: %w", cmd, unix.ETIMEDOUT)
	}
	if r.id != c.id || r.command != cmd {
		c.conn.sock.Close()
		return nil, fmt.Errorf("reply to %v %d instead of %v %d: %w", r.command, r.id, cmd, c.id, ErrProtocol)
	}
	if r.flags&flagError != 0 {
		return nil, fmt.Errorf("%v: server says %w", cmd, unix.Errno(r.errno))
	}
	return r.body, nil
}

// send sends a command under the next id. mu is held.
func (c *Client) send(cmd Command, flags uint32, body, data []byte, fds ...int) error {
	if c.Err() != nil {
		return fmt.Errorf("%v: %w", cmd, c.err)
	}
	c.id++
	c.conn.sock.SetWriteDeadline(time.Now().Add(c.timeout))
	if err := c.conn.send(header{id: c.id, command: cmd, flags: flags}, body, data, fds...); err != nil {
		c.conn.sock.Close() // part of it may be sent
		return err
	}
	return nil
}
