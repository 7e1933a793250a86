// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net"
	"os"

	"hwvtpm/internal/unixsock"
)

// arrivals are the connections of a channel, one after the other.
type arrivals struct {
	listener net.Listener // nil if there was one connection, which was handed over
	conn     net.Conn     // that one, until it is taken
}

// open makes or takes over what the channel describes.
func (c *channel) open() (*arrivals, error) {
	switch {
	case c.network == "tcp":
		ln, err := net.Listen("tcp", c.address)
		return &arrivals{listener: ln}, err
	case c.network == "unix":
		ln, err := unixsock.ListenAs(unixsock.Stream, c.address, c.mode, c.uid, c.gid)
		if err != nil {
			return nil, err
		}
		return &arrivals{listener: ln}, nil
	case c.fd >= 0:
		f := os.NewFile(uintptr(c.fd), "listener")
		defer f.Close() // net works on a duplicate
		ln, err := net.FileListener(f)
		if err != nil {
			return nil, fmt.Errorf("fd=%d: %w", c.fd, err)
		}
		return &arrivals{listener: ln}, nil
	}
	f := os.NewFile(uintptr(c.connected), "connection")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", c.connected, err)
	}
	return &arrivals{conn: conn}, nil
}

// errNoMore: the one connection that there was has been taken.
var errNoMore = errors.New("no more connections")

// next waits for a connection.
func (a *arrivals) next() (net.Conn, error) {
	if a.listener != nil {
		return a.listener.Accept()
	}
	if a.conn == nil {
		return nil, errNoMore
	}
	c := a.conn
	a.conn = nil
	return c, nil
}

// close ends the waiting; a socket of ours goes from the file system.
func (a *arrivals) close() {
	if a.listener != nil {
		a.listener.Close()
	}
}
