// SPDX-License-Identifier: Apache-2.0

package unixsock

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Peer asks the kernel who was on the other end when the connection was made: for
// a server who connected, for a client who called listen(2). Pid is 0 for a
// process of a PID namespace that cannot be seen from here.
func Peer(c syscall.Conn) (*unix.Ucred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("peer credentials: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, credErr); err != nil {
		return nil, fmt.Errorf("peer credentials: %w", err)
	}
	return cred, nil
}
