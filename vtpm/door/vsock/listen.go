// SPDX-License-Identifier: Apache-2.0

package vsock

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Listener accepts connections. Its methods are as net.Listener's.
type Listener struct {
	file   *os.File
	conn   syscall.RawConn
	addr   Addr
	closed atomic.Bool
}

var _ net.Listener = (*Listener)(nil)

// Listen listens: at CIDAny for all who can reach it. Errors are *net.OpError.
func Listen(at Addr) (*Listener, error) {
	fd, err := newSocket()
	if err != nil {
		return nil, opError("listen", at, err)
	}
	addr, err := listen(fd, at)
	if err != nil {
		unix.Close(fd)
		return nil, opError("listen", at, err)
	}
	f := os.NewFile(uintptr(fd), "vsock:"+addr.String())
	conn, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, opError("listen", at, err)
	}
	return &Listener{file: f, conn: conn, addr: addr}, nil
}

func listen(fd int, at Addr) (Addr, error) {
	if err := unix.Bind(fd, &unix.SockaddrVM{CID: at.CID, Port: at.Port}); err != nil {
		return at, os.NewSyscallError("bind", err)
	}
	if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
		return at, os.NewSyscallError("listen", err)
	}
	return addrOf(unix.Getsockname(fd))
}

// Accept implements net.Listener; it gives a *Conn, whose Peer has connected.
func (l *Listener) Accept() (net.Conn, error) {
	var fd int
	var peer unix.Sockaddr
	var err error
	waitErr := l.conn.Read(func(listener uintptr) bool {
		for { // the next one, if one changed its mind
			fd, peer, err = unix.Accept4(int(listener), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ECONNABORTED) {
				return !errors.Is(err, unix.EAGAIN)
			}
		}
	})
	if waitErr != nil && l.closed.Load() {
		return nil, opError("accept", l.addr, net.ErrClosed)
	}
	if err = errors.Join(waitErr, os.NewSyscallError("accept", err)); err != nil {
		return nil, opError("accept", l.addr, err)
	}
	remote, err := addrOf(peer, nil)
	if err != nil {
		unix.Close(fd)
		return nil, opError("accept", l.addr, err)
	}
	c, err := newConn(fd, remote)
	if err != nil {
		return nil, opError("accept", l.addr, err)
	}
	return c, nil
}

// Addr implements net.Listener; it is an Addr.
func (l *Listener) Addr() net.Addr { return l.addr }

// Close implements net.Listener, and ends an Accept that waits.
func (l *Listener) Close() error {
	l.closed.Store(true)
	if err := l.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return opError("close", l.addr, err)
	}
	return nil
}
