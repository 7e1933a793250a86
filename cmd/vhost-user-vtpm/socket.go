// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
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
	ln, err := listen(c.socketPath, c.socketMode)
	return endpoint{listener: ln}, err
}

// listen makes the socket at path. A socket that a dead process left there is
// replaced; a living one, or anything else, is not touched.
func listen(path string, mode os.FileMode) (*net.UnixListener, error) {
	if err := clearStale(path); err != nil {
		return nil, err
	}
	old := unix.Umask(0o777 &^ int(mode))
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("listening for QEMU: %w", err)
	}
	return ln, nil
}

func clearStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("looking for an old socket: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s exists and is not a socket: choose another --socket-path", path)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return fmt.Errorf("another process serves %s: stop it or choose another --socket-path", path)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("removing the old socket: %w", err)
	}
	return nil
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
