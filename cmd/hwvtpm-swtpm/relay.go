// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc"
	"hwvtpm/internal/unixsock"
)

// relay passes the control channel of clients that come and go on to one session
// of the server, and commands to its data channel.
type relay struct {
	inner *net.UnixConn // the control channel of the session
	data  net.Conn      // its data channel, if openData was called
	resp  [coproc.MaxTransfer]byte

	mu      sync.Mutex
	changed *sync.Cond
	client  net.Conn // takes the answers; nil: nobody
	owed    bool     // a request was passed on, and not answered yet
	over    bool     // the session has ended
}

func newRelay(inner *net.UnixConn) *relay {
	r := &relay{inner: inner}
	r.changed = sync.NewCond(&r.mu)
	return r
}

// unixPair makes two connected sockets.
func unixPair() (*net.UnixConn, *net.UnixConn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	var conns [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		c, connErr := net.FileConn(f)
		err = errors.Join(err, connErr, f.Close())
		conns[i], _ = c.(*net.UnixConn)
	}
	return conns[0], conns[1], err
}

// openData gives the session a data channel whose other end is ours.
func (r *relay) openData(c *control) error {
	ours, theirs, err := unixPair()
	if err != nil {
		return err
	}
	defer theirs.Close()
	f, err := theirs.File()
	if err != nil {
		return err
	}
	defer f.Close()
	r.data = ours
	return c.sendFD(cmdSetDataFD, int(f.Fd()))
}

// control passes a client's requests on until it hangs up.
func (r *relay) control(client net.Conn) {
	r.mu.Lock()
	r.client = client
	r.mu.Unlock()
	buf, oob := make([]byte, 8192), make([]byte, unix.CmsgSpace(4*16))
	for {
		n, rights, err := readWithRights(client, buf, oob)
		if n > 0 {
			r.mu.Lock()
			r.owed = true
			r.mu.Unlock()
			err = errors.Join(err, writeWithRights(r.inner, buf[:n], rights))
		}
		closeRights(rights)
		if err != nil || n == 0 {
			break
		}
	}
	r.forget()
}

// quiet is how long an answer of several pieces may pause.
const quiet = 20 * time.Millisecond

// forget drops the client, and the answer that it did not wait for, lest the
// next client takes it for its own. A request that is not whole is never
// answered: then the session ends, after its own patience.
func (r *relay) forget() {
	r.mu.Lock()
	r.client = nil
	late := r.owed
	for r.owed && !r.over {
		r.changed.Wait()
	}
	r.mu.Unlock()
	if late {
		time.Sleep(quiet)
	}
}

// answers passes answers to the client of the moment until the session ends.
func (r *relay) answers() {
	buf := make([]byte, 64<<10)
	for {
		n, err := r.inner.Read(buf)
		r.mu.Lock()
		client := r.client
		r.over = err != nil
		if n > 0 {
			r.owed = false
		}
		r.changed.Broadcast()
		r.mu.Unlock()
		if n > 0 && client != nil {
			_, _ = client.Write(buf[:n]) // a client that is gone misses nothing
		}
		if err != nil {
			return
		}
	}
}

// hangUp ends everything that waits.
func (r *relay) hangUp() {
	r.inner.Close()
	if r.data != nil {
		r.data.Close()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.client != nil {
		r.client.Close()
	}
	r.over = true
	r.changed.Broadcast()
}

// commands passes a client's commands on until it hangs up, or with once after
// the first.
func (r *relay) commands(client net.Conn, once bool) {
	cmd := make([]byte, coproc.MaxTransfer)
	for {
		n, whole, err := readMessage(client, cmd)
		if n == 0 {
			return
		}
		resp, passErr := r.command(cmd[:n])
		if passErr == nil {
			_, passErr = client.Write(resp)
		}
		clear(cmd[:n]) // both may have passwords in them
		clear(resp)
		if err != nil || passErr != nil || once || !whole {
			return
		}
	}
}

// command gives one command to the TPM. The response is valid until the next.
func (r *relay) command(cmd []byte) ([]byte, error) {
	if _, err := r.data.Write(cmd); err != nil {
		return nil, err
	}
	n, whole, err := readMessage(r.data, r.resp[:])
	if err == nil && !whole {
		err = errors.New("the TPM's response has a wrong size")
	}
	return r.resp[:n], err
}

// headerSize is the size of the header of commands and responses: tag, size,
// code (TCG TPM 2.0 Part 1, "Command/Response Structure").
const headerSize = 10

// readMessage reads a command or response by the size in its header. If that is
// impossible, it gives the header alone, and whole is false.
func readMessage(from io.Reader, buf []byte) (n int, whole bool, err error) {
	if n, err = io.ReadFull(from, buf[:headerSize]); err != nil {
		return n, false, err
	}
	size := order.Uint32(buf[2:])
	if size < headerSize || size > uint32(len(buf)) {
		return n, false, nil
	}
	m, err := io.ReadFull(from, buf[headerSize:size])
	return n + m, err == nil, err
}

// readWithRights reads what is there, with the descriptors that come along as
// the control message that carries them.
func readWithRights(c net.Conn, buf, oob []byte) (n int, rights []byte, err error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		n, err = c.Read(buf)
		return n, nil, err
	}
	n, oobn, _, _, err := u.ReadMsgUnix(buf, oob)
	return n, oob[:oobn], err
}

func writeWithRights(c *net.UnixConn, b, rights []byte) error {
	n, _, err := c.WriteMsgUnix(b, rights, nil)
	if err == nil && n < len(b) {
		_, err = c.Write(b[n:])
	}
	return err
}

// closeRights closes this process' side of descriptors.
func closeRights(rights []byte) {
	fds, _ := unixsock.Rights(rights)
	unixsock.CloseAll(fds)
}
