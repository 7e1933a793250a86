// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Kinds of UNIX sockets, in the words of package net.
const (
	packets = "unixpacket" // SOCK_SEQPACKET
	stream  = "unix"
)

// listen makes a socket. One that a dead process left there is replaced; a living
// one, or anything else, is not touched.
func listen(network, path string, mode os.FileMode) (*net.UnixListener, error) {
	if err := clearStale(path); err != nil {
		return nil, err
	}
	old := unix.Umask(0o777 &^ int(mode))
	l, err := net.ListenUnix(network, &net.UnixAddr{Name: path, Net: network})
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("listen for clients: %w", err)
	}
	return l, nil
}

func clearStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("look for an old socket: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s exists and is not a socket: choose another path", path)
	}
	for _, network := range []string{packets, stream} { // the wrong kind is refused like a dead one
		if c, err := net.DialTimeout(network, path, time.Second); err == nil {
			c.Close()
			return fmt.Errorf("another process serves %s: stop it or choose another path", path)
		}
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove the old socket: %w", err)
	}
	return nil
}

// firstPassed is where passed sockets begin (sd_listen_fds(3)).
const firstPassed = 3

// passed gives the sockets that a service manager made for this process: none, or
// one for package broker. They count once.
func passed() (*net.UnixListener, error) {
	pid, count := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(name)
	}
	if count == "" || pid != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	if count != "1" {
		return nil, fmt.Errorf("%s sockets were passed, want one", count)
	}
	f := os.NewFile(firstPassed, "passed socket")
	defer f.Close() // net works on a duplicate
	kind, err := unix.GetsockoptInt(firstPassed, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return nil, fmt.Errorf("passed socket: %w", err)
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("passed socket: %w", err)
	}
	if u, ok := l.(*net.UnixListener); ok && kind == unix.SOCK_SEQPACKET {
		return u, nil
	}
	l.Close()
	return nil, errors.New("passed socket is not a UNIX socket of sequential packets (ListenSequentialPacket=)")
}
