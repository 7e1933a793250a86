// SPDX-License-Identifier: Apache-2.0

package unixsock

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Kinds of UNIX sockets, in the words of package net.
const (
	Stream  = "unix"
	Packets = "unixpacket" // SOCK_SEQPACKET
)

// Listen makes a socket with exactly this mode. One that a dead process left there
// is replaced; a living one, or anything else, is not touched. It changes the
// umask of the process for a moment, so that nobody gets in before the mode is
// right: no other goroutine should make files meanwhile.
func Listen(network, path string, mode os.FileMode) (*net.UnixListener, error) {
	if err := ClearStale(path); err != nil {
		return nil, err
	}
	old := unix.Umask(0o777 &^ int(mode))
	l, err := net.ListenUnix(network, &net.UnixAddr{Name: path, Net: network})
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return l, nil
}

// ClearStale removes the socket that a dead process left at path. It is an error
// if somebody serves it, or if something else is there.
func ClearStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("look for an old socket: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s exists and is not a socket: choose another path", path)
	}
	for _, network := range []string{Packets, Stream} { // the wrong kind is refused like a dead one
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
