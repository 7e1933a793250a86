// SPDX-License-Identifier: Apache-2.0

package unixsock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Kinds of UNIX sockets, in the words of package net.
const (
	Stream  = "unix"
	Packets = "unixpacket" // SOCK_SEQPACKET
)

// Listen makes a socket with exactly this mode. One that a dead process left there
// is replaced; a living one, or anything else, is not touched.
func Listen(network, path string, mode os.FileMode) (*net.UnixListener, error) {
	return ListenAs(network, path, mode, -1, -1)
}

// ListenAs is Listen with an owner and a group; -1 leaves that of the process. Nobody
// can connect before mode and owner are right. They are given to the socket itself,
// and not to what others may have put in its place meanwhile: then it fails.
func ListenAs(network, path string, mode os.FileMode, uid, gid int) (*net.UnixListener, error) {
	if err := ClearStale(path); err != nil {
		return nil, err
	}
	config := net.ListenConfig{Control: shut}
	l, err := config.Listen(context.Background(), network, path)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if err := grant(path, mode, uid, gid); err != nil {
		return nil, errors.Join(fmt.Errorf("listen: %s: %w", path, err), l.Close())
	}
	return l.(*net.UnixListener), nil
}

// shut has bind(2) make a file of mode 0: it takes the mode of the socket's inode, as
// far as the umask lets it. The umask itself is that of all threads.
func shut(_, _ string, c syscall.RawConn) error {
	var modeErr error
	err := c.Control(func(fd uintptr) { modeErr = unix.Fchmod(int(fd), 0) })
	return errors.Join(err, modeErr)
}

// errExchanged: what is at the path is not the socket that was made there.
var errExchanged = errors.New("somebody has put something else in the socket's place")

// grant gives the socket that was just made its mode and owner, through a descriptor of
// its file. A socket of ours that is shut and has no other name can only be that one.
func grant(path string, mode os.FileMode, uid, gid int) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode != unix.S_IFSOCK || int(st.Uid) != os.Geteuid() || st.Nlink != 1 {
		return errExchanged
	}
	if uid >= 0 || gid >= 0 {
		if err := unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
			return fmt.Errorf("owner: %w", err)
		}
	}
	// fchmod(2) takes no such descriptor.
	if err := unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), uint32(mode.Perm())); err != nil {
		return fmt.Errorf("mode: %w", err)
	}
	return nil
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
