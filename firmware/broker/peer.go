// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"fmt"
	"net"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Policy says who is an administrator beside root and the user that the server
// runs as.
type Policy struct {
	UIDs []uint32
	GIDs []uint32 // of users whose primary group or one of the others it is
}

func (p Policy) admin(c credentials) bool {
	return c.uid == 0 || int(c.uid) == os.Geteuid() || slices.Contains(p.UIDs, c.uid) ||
		slices.ContainsFunc(p.GIDs, func(g uint32) bool { return g == c.gid || slices.Contains(c.groups, g) })
}

// credentials are a client's, as the kernel noted them when it connected.
type credentials struct {
	pid      int32
	uid, gid uint32
	groups   []uint32
}

func (c credentials) String() string { return fmt.Sprintf("uid %d, pid %d", c.uid, c.pid) }

func peerCredentials(sock *net.UnixConn) (c credentials, err error) {
	raw, err := sock.SyscallConn()
	if err != nil {
		return c, err
	}
	ctl := raw.Control(func(fd uintptr) {
		var u *unix.Ucred
		if u, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err != nil {
			return
		}
		c = credentials{pid: u.Pid, uid: u.Uid, gid: u.Gid}
		c.groups, err = peerGroups(int(fd))
	})
	if ctl != nil {
		return c, ctl
	}
	if err != nil {
		return c, fmt.Errorf("credentials of a client: %w", err)
	}
	return c, nil
}
