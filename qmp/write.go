// SPDX-License-Identifier: Apache-2.0

package qmp

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// write sends one frame, with fds beside its first byte. If ctx ends while a
// frame is half written, the rest is kept and goes out before the next frame, so
// that the stream stays well formed.
func (c *Client) write(ctx context.Context, frame []byte, fds []*os.File) error {
	select {
	case c.writeSem <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	case <-c.done:
		return c.cause()
	}
	defer func() { <-c.writeSem }()
	restore := c.interruptWrites(ctx)
	defer restore()
	select {
	case <-c.done: // checked after the deadline is ours: fail sets it for good
		return c.cause()
	default:
	}

	err := c.flushTail()
	if err == nil {
		err = c.writeFrame(frame, fds)
	}
	if err == nil {
		return nil
	}
	return c.writeError(ctx, err)
}

// interruptWrites makes writes on the connection fail as soon as ctx ends. The
// returned function undoes that. Preconditions: writeSem is held.
func (c *Client) interruptWrites(ctx context.Context) (restore func()) {
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(fired)
		_ = c.conn.SetWriteDeadline(longAgo) // fails only if conn is closed
	})
	return func() {
		if stop() {
			return
		}
		<-fired
		_ = c.conn.SetWriteDeadline(time.Time{}) // fails only if conn is closed
	}
}

// flushTail writes what is left of an abandoned frame.
// Preconditions: writeSem is held.
func (c *Client) flushTail() error {
	if len(c.tail) == 0 {
		return nil
	}
	n, err := c.conn.Write(c.tail)
	c.tail = c.tail[n:]
	return err
}

// writeFrame sends frame; what could not be sent of a begun frame becomes the
// tail. Preconditions: writeSem is held and the tail is empty.
func (c *Client) writeFrame(frame []byte, fds []*os.File) error {
	n := 0
	if len(fds) > 0 {
		sent, err := c.writeRights(frame, fds)
		if err != nil {
			return err // all or nothing: rights go with the first byte
		}
		n = sent
	}
	if n == len(frame) {
		return nil
	}
	sent, err := c.conn.Write(frame[n:])
	if n += sent; n > 0 {
		c.tail = frame[n:]
	}
	return err
}

// writeRights sends the start of frame with descriptors attached.
func (c *Client) writeRights(frame []byte, files []*os.File) (n int, err error) {
	err = withDescriptors(files, nil, func(fds []int) error {
		n, _, err = c.conn.WriteMsgUnix(frame, unix.UnixRights(fds...), nil)
		return err
	})
	return n, err
}

// withDescriptors calls f with the descriptors of files, which stay valid until
// f returns. It does not change their blocking mode as File.Fd may.
func withDescriptors(files []*os.File, fds []int, f func(fds []int) error) error {
	if len(files) == 0 {
		return f(fds)
	}
	raw, err := files[0].SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) {
		inner = withDescriptors(files[1:], append(fds, int(fd)), f)
	})
	return errors.Join(err, inner)
}

// writeError gives a failed write its meaning. It does not end the connection:
// the reader goroutine does, after the last bytes of the peer.
func (c *Client) writeError(ctx context.Context, err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if cause := c.cause(); cause != nil {
			return cause
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return fmt.Errorf("%w: %w", ErrDisconnected, err)
	}
	return err
}
