// SPDX-License-Identifier: Apache-2.0

package coprocd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/admin"
	"hwvtpm/internal/unixsock"
)

// maxFiles is how many descriptors come with an answer at most: a slot's data
// and control sockets.
const maxFiles = 2

// CommandTimeout bounds a command whose context brings no earlier end. Making a
// slot includes making RSA keys.
const CommandTimeout = 2 * time.Minute

// Conn is a connection to a daemon for admin commands. It implements admin.Conn
// and may be used from any goroutine; commands run one at a time. It does not
// connect again: after an error that is no refusal of the card it is of no use
// any more.
type Conn struct {
	sock *net.UnixConn

	mu     sync.Mutex // serializes commands, guards what follows
	seq    uint64
	broken error
	buf    [abi.MaxMessage + 1]byte // one more, to notice what is too long
}

var _ admin.Conn = (*Conn)(nil)

// Dial connects to the daemon's socket.
func Dial(ctx context.Context, path string) (*Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unixpacket", path)
	if err != nil {
		return nil, fmt.Errorf("connect to the coprocessor: %w", ended(ctx, err))
	}
	return &Conn{sock: c.(*net.UnixConn)}, nil
}

// Close ends the connection, and a command that waits. It is idempotent. Slots
// that were opened stay open.
func (c *Conn) Close() error {
	if err := c.sock.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// Command implements admin.Conn.
func (c *Conn) Command(ctx context.Context, sub *abi.Submission) ([]byte, []*os.File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != nil {
		return nil, nil, c.broken
	}
	done, files, err := c.exchange(ctx, sub)
	if err != nil {
		err = fmt.Errorf("coprocessor: %w", ended(ctx, err))
		// What comes next could be the late answer to this.
		c.broken = fmt.Errorf("connection is of no use since an error: %w", err)
		c.Close()
		return nil, nil, err
	}
	if err := admin.Refusal(sub.Op, done.Status, done.Payload); err != nil {
		closeFiles(files)
		return nil, nil, err
	}
	return append([]byte(nil), done.Payload...), files, nil
}

// ended gives an error of a call that was given up the cause that tells why.
func ended(ctx context.Context, err error) error {
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("%w: %w", coproc.ErrCanceled, err)
	case ctx.Err() != nil, errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w: %w", coproc.ErrTimeout, err)
	case errors.Is(err, net.ErrClosed):
		return fmt.Errorf("%w: %w", coproc.ErrClosed, err)
	}
	return err
}

// exchange sends a submission and receives its completion, whose payload is
// valid until the next.
func (c *Conn) exchange(ctx context.Context, sub *abi.Submission) (abi.Completion, []*os.File, error) {
	if len(sub.Payload) > abi.MaxPayload {
		return abi.Completion{}, nil, fmt.Errorf("payload of %d bytes: %w", len(sub.Payload), abi.ErrMalformed)
	}
	ctx, cancel := context.WithTimeout(ctx, CommandTimeout)
	defer cancel()
	deadline, _ := ctx.Deadline()
	c.sock.SetDeadline(deadline)
	defer context.AfterFunc(ctx, func() { c.sock.SetDeadline(time.Unix(1, 0)) })()
	c.seq++
	numbered := *sub
	numbered.Seq = c.seq
	if _, err := c.sock.Write(abi.AppendSubmission(c.buf[:0], &numbered)); err != nil {
		return abi.Completion{}, nil, fmt.Errorf("send: %w", err)
	}
	msg, files, err := c.receive()
	if err != nil {
		return abi.Completion{}, nil, err
	}
	done, err := abi.ParseCompletion(msg)
	if err == nil && (done.Op != sub.Op || done.Seq != numbered.Seq || done.Slot != sub.Slot) {
		err = fmt.Errorf("completion of another submission: %w", abi.ErrMalformed)
	}
	if err != nil {
		closeFiles(files)
		return abi.Completion{}, nil, err
	}
	return done, files, nil
}

// receive receives one packet and what came with it.
func (c *Conn) receive() ([]byte, []*os.File, error) {
	n, fds, err := unixsock.Receive(c.sock, c.buf[:], make([]byte, unixsock.Space(maxFiles)))
	var files []*os.File
	for _, fd := range fds {
		files = append(files, os.NewFile(uintptr(fd), "slot channel"))
	}
	if err != nil {
		closeFiles(files)
		if errors.Is(err, unixsock.ErrTruncated) {
			err = fmt.Errorf("%w: %w", err, abi.ErrMalformed)
		}
		return nil, nil, fmt.Errorf("receive: %w", err)
	}
	return c.buf[:n], files, nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
