// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

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
