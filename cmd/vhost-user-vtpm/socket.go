// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"hwvtpm/internal/unixsock"
)

// endpoint is where QEMU is: a listener that it connects to, or a connection
// that somebody made for us. Exactly one is set.
type endpoint struct {
	listener *net.UnixListener
	conn     *net.UnixConn
}

func (e endpoint) close() {
	if e.listener != nil {
		e.listener.Close()
	}
	if e.conn != nil {
		e.conn.Close()
	}
}

func openEndpoint(c config) (endpoint, error) {
	if c.fd >= 0 {
		return inherit(c.fd)
	}
	ln, err := unixsock.Listen(unixsock.Stream, c.socketPath, c.socketMode)
	return endpoint{listener: ln}, err
}

// inherit takes over the socket fd.
func inherit(fd int) (endpoint, error) {
	listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return endpoint{}, fmt.Errorf("--fd %d is not a socket: %w", fd, err)
	}
	f := os.NewFile(uintptr(fd), "vhost-user socket")
	defer f.Close() // net's functions work on a duplicate
	if listening != 0 {
		ln, err := net.FileListener(f)
		if err != nil {
			return endpoint{}, fmt.Errorf("--fd %d: %w", fd, err)
		}
		if l, ok := ln.(*net.UnixListener); ok {
			return endpoint{listener: l}, nil
		}
		ln.Close()
		return endpoint{}, fmt.Errorf("--fd %d is not a UNIX socket", fd)
	}
	conn, err := net.FileConn(f)
	if err != nil {
		return endpoint{}, fmt.Errorf("--fd %d: %w", fd, err)
	}
	if c, ok := conn.(*net.UnixConn); ok {
		return endpoint{conn: c}, nil
	}
	conn.Close()
	return endpoint{}, fmt.Errorf("--fd %d is not a UNIX socket", fd)
}
