// SPDX-License-Identifier: Apache-2.0

package vsock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Well-known context IDs.
const (
	CIDAny   uint32 = unix.VMADDR_CID_ANY
	CIDLocal uint32 = unix.VMADDR_CID_LOCAL
	CIDHost  uint32 = unix.VMADDR_CID_HOST
)

// PortAny lets the kernel choose a port to listen at.
const PortAny uint32 = unix.VMADDR_PORT_ANY

// Addr is the address of a socket.
type Addr struct {
	CID, Port uint32
}

var _ net.Addr = Addr{}

// Network implements net.Addr.
func (Addr) Network() string { return "vsock" }

// String implements net.Addr: CID:PORT.
func (a Addr) String() string { return fmt.Sprintf("%d:%d", a.CID, a.Port) }

// Conn is a connection. Its methods are as net.Conn's.
type Conn struct {
	*os.File
	local, remote Addr
}

var _ net.Conn = (*Conn)(nil)

// LocalAddr implements net.Conn; it is an Addr.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn; it is an Addr.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// Peer is who is at the other end, by the kernel's word.
func (c *Conn) Peer() Addr { return c.remote }

// newConn takes over a connected descriptor.
func newConn(fd int, remote Addr) (*Conn, error) {
	local, err := addrOf(unix.Getsockname(fd))
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "vsock:"+remote.String())
	return &Conn{f, local, remote}, nil
}

func addrOf(sa unix.Sockaddr, err error) (Addr, error) {
	if err != nil {
		return Addr{}, err
	}
	vm, ok := sa.(*unix.SockaddrVM)
	if !ok {
		return Addr{}, fmt.Errorf("an address of type %T", sa)
	}
	return Addr{vm.CID, vm.Port}, nil
}

// newSocket gives a descriptor that the runtime can wait for.
func newSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	return fd, os.NewSyscallError("socket", err)
}

func opError(op string, a Addr, err error) error {
	return &net.OpError{Op: op, Net: "vsock", Addr: a, Err: err}
}

// Dial connects. Errors are *net.OpError.
func Dial(ctx context.Context, to Addr) (*Conn, error) {
	fd, err := newSocket()
	if err != nil {
		return nil, opError("dial", to, err)
	}
	if err := connect(ctx, fd, to); err != nil {
		unix.Close(fd)
		return nil, opError("dial", to, err)
	}
	c, err := newConn(fd, to)
	if err != nil {
		return nil, opError("dial", to, err)
	}
	return c, nil
}

const poll = 50 * time.Millisecond // how late the end of a context may be noticed

// connect waits for a connection that doesn't block. An os.File can't be made of the
// descriptor before it is connected: the runtime takes the hang-up of a socket that is
// not yet connected for an end.
func connect(ctx context.Context, fd int, to Addr) error {
	err := unix.Connect(fd, &unix.SockaddrVM{CID: to.CID, Port: to.Port})
	if err == nil || !errors.Is(err, unix.EINPROGRESS) {
		return os.NewSyscallError("connect", err)
	}
	for {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(fds, int(poll.Milliseconds()))
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && !errors.Is(err, unix.EINTR):
			return os.NewSyscallError("poll", err)
		case n == 0 || err != nil:
			continue
		}
		code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && code != 0 {
			err = unix.Errno(code)
		}
		return os.NewSyscallError("connect", err)
	}
}
