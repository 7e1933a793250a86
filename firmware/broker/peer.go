// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"

	"hwvtpm/internal/unixsock"
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

func peerCredentials(sock *net.UnixConn) (credentials, error) {
	u, err := unixsock.Peer(sock)
	if err != nil {
		return credentials{}, err
	}
	c := credentials{pid: u.Pid, uid: u.Uid, gid: u.Gid}
	raw, err := sock.SyscallConn()
	if err != nil {
		return c, err
	}
	var groupsErr error
	err = raw.Control(func(fd uintptr) { c.groups, groupsErr = peerGroups(int(fd)) })
	if err = errors.Join(err, groupsErr); err != nil {
		return c, fmt.Errorf("groups of a client: %w", err)
	}
	return c, nil
}
