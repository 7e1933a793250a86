// SPDX-License-Identifier: Apache-2.0

package emulator

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/internal/unixsock"
)

// request is a control request.
type request struct {
	cmd  command
	body []byte // valid until the next request is read
	fd   int    // that came along, or -1; who reads the request owns it
}

// requests reads from a control socket. It belongs to one goroutine.
type requests struct {
	conn     *net.UnixConn
	patience time.Duration
	buf      [maxRequest]byte
	// oob has room for more descriptors than the one that is ever wanted,
	// so that the kernel does not have to drop what fits in between.
	oob [64]byte
}

// next waits for a request, for any time, and for the rest of one, with
// patience. io.EOF: the peer has hung up between two requests.
func (r *requests) next() (request, error) {
	n, oobn, _, _, err := r.conn.ReadMsgUnix(r.buf[:], r.oob[:])
	fd := firstDescriptor(r.oob[:oobn])
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err == nil {
		n, err = r.rest(n)
	}
	if err != nil {
		closeFD(fd)
		return request{}, err
	}
	return request{cmd: command(order.Uint32(r.buf[:])), body: r.buf[codeBytes:n], fd: fd}, nil
}

// rest reads on until the n bytes that are here have become a whole request.
func (r *requests) rest(n int) (int, error) {
	if n >= owed(r.buf[:n]) {
		return n, nil
	}
	if err := r.conn.SetReadDeadline(time.Now().Add(r.patience)); err != nil {
		return n, err
	}
	for n < owed(r.buf[:n]) {
		m, err := r.conn.Read(r.buf[n:]) // the kernel drops descriptors here
		n += m
		if err != nil {
			return n, cutOff(err)
		}
	}
	return n, r.conn.SetReadDeadline(time.Time{})
}

// fill reads the rest of a state blob.
func (r *requests) fill(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if err := r.conn.SetReadDeadline(time.Now().Add(r.patience)); err != nil {
		return err
	}
	if _, err := io.ReadFull(r.conn, b); err != nil {
		return cutOff(err)
	}
	return r.conn.SetReadDeadline(time.Time{})
}

func cutOff(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("a request was cut off: %w", err)
}

// answer sends b.
func (r *requests) answer(b ...[]byte) error {
	if err := r.conn.SetWriteDeadline(time.Now().Add(r.patience)); err != nil {
		return err
	}
	for _, part := range b {
		if _, err := r.conn.Write(part); err != nil {
			return fmt.Errorf("answering: %w", err)
		}
	}
	return nil
}

// firstDescriptor takes the first descriptor out of control messages and closes
// all others; -1: there is none.
func firstDescriptor(oob []byte) int {
	fds, _ := unixsock.Rights(oob)
	if len(fds) == 0 {
		return -1
	}
	unixsock.CloseAll(fds[1:])
	return fds[0]
}

func closeFD(fd int) {
	if fd >= 0 {
		_ = unix.Close(fd)
	}
}
