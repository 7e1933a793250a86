// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

var errNotSocket = errors.New("descriptor is not a socket")

// asSocket checks that f is a socket.
func (f *fd) asSocket() error {
	var st unix.Stat_t
	if err := unix.Fstat(f.n, &st); err != nil {
		return fmt.Errorf("fstat: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return errNotSocket
	}
	return nil
}

// channel carries messages from the back-end to the front-end ("Back-end
// communication"). It is safe for concurrent use.
//
// It only ever sends, without asking for a reply and without blocking: the
// front-end may be waiting for this back-end at that moment, and QEMU has one
// thread for both.
type channel struct {
	mu   sync.Mutex
	sock *fd
}

// set takes over a new socket, or closes the channel with nil.
func (c *channel) set(f *fd) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sock.close()
	c.sock = f
}

func (c *channel) send(r Request) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sock == nil {
		return ErrNoChannel
	}
	b := header{request: r, flags: flagVersion}.append(nil)
	for {
		n, err := unix.SendmsgN(c.sock.n, b, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return fmt.Errorf("send to front-end: %w", err)
		case n != len(b):
			// Half a message would garble all later ones.
			c.sock.close()
			c.sock = nil
			return fmt.Errorf("send to front-end: only %d of %d bytes fit", n, len(b))
		}
		return nil
	}
}
