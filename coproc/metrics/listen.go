// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
)

// socketMode lets the group of a UNIX socket read the numbers. They are no
// secret, but tell what a guest does and when.
const socketMode = 0o660

// Listen opens the address of an endpoint: "unix:PATH", or "HOST:PORT" for TCP,
// where anybody who can connect can read. A socket file whose listener is gone
// is replaced.
func Listen(addr string) (net.Listener, error) {
	path, isUnix := strings.CutPrefix(addr, "unix:")
	if !isUnix {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return nil, fmt.Errorf("metrics: address %q is neither unix:PATH nor HOST:PORT", addr)
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
		return l, nil
	}
	l, err := net.Listen("unix", path)
	if errors.Is(err, syscall.EADDRINUSE) && isStale(path) {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
		l, err = net.Listen("unix", path)
	}
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	if err := os.Chmod(path, socketMode); err != nil {
		return nil, errors.Join(fmt.Errorf("metrics: %w", err), l.Close())
	}
	return l, nil
}

// isStale tells whether path is a socket that nobody listens on.
func isStale(path string) bool {
	if fi, err := os.Lstat(path); err != nil || fi.Mode().Type() != os.ModeSocket {
		return false
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		c.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}
