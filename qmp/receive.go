// SPDX-License-Identifier: Apache-2.0

package qmp

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// receiveSize is how much one recv(2) takes at most, in bytes.
const receiveSize = 64 << 10

// receiveLoop is the reader goroutine: it waits for the socket to be readable
// and pumps. It owns the end of the socket's life: whatever ends the
// connection, this goroutine closes the descriptor.
func (c *Client) receiveLoop() {
	defer close(c.readerDone)
	err := c.raw.Read(func(fd uintptr) bool {
		for {
			switch c.pump(fd) {
			case pumpEmpty:
				return false
			case pumpEnded:
				return true
			}
		}
	})
	if err != nil {
		c.fail(fmt.Errorf("%w: %w", ErrDisconnected, err))
	}
	_ = c.conn.Close() // the peer is gone or told so; nothing is left to report
}

// Drain processes every byte that is already in the socket, without blocking:
// afterwards each subscription holds every event that the peer had written
// completely before Drain was called. The start of a line whose rest has not
// been written yet stays buffered.
//
// Drain never waits for the peer, so it may be called while the peer waits for
// the caller (QEMU's main thread does, during a vhost-user request that owes a
// reply). It shares the work with the reader goroutine: either may read a given
// byte, both dispatch in stream order. Safe for concurrent use. Bytes that
// arrive during the call are not chased, so a peer that never stops writing
// cannot keep it.
//
// The error is that of the connection if it has ended; events received before
// the end can still be taken.
func (c *Client) Drain() error {
	err := c.raw.Control(func(fd uintptr) {
		c.receiveMu.Lock()
		defer c.receiveMu.Unlock()
		c.drainLocked(fd)
	})
	if ended := c.Err(); ended != nil {
		return ended
	}
	if err != nil {
		return fmt.Errorf("qmp: drain: %w", err)
	}
	return nil
}

// drainLocked receives what the kernel holds now, and not more.
// Preconditions: c.receiveMu is held.
func (c *Client) drainLocked(fd uintptr) {
	left, err := unix.IoctlGetInt(int(fd), unix.SIOCINQ)
	if err != nil {
		c.fail(fmt.Errorf("%w: queue length: %w", ErrDisconnected, err))
		return
	}
	// One look beyond that finds the end of the stream, if it is there.
	for {
		n, state := c.receiveLocked(fd)
		if state != pumpMore || left <= 0 {
			return
		}
		left -= n
	}
}

type pumpState int

const (
	pumpMore  pumpState = iota // something was received; there may be more
	pumpEmpty                  // the socket is empty
	pumpEnded                  // the connection has ended
)

// pump receives and dispatches once. The lock is dropped between calls so that
// a flood of input cannot keep Drain out.
func (c *Client) pump(fd uintptr) pumpState {
	c.receiveMu.Lock()
	defer c.receiveMu.Unlock()
	_, state := c.receiveLocked(fd)
	return state
}

// receiveLocked takes up to receiveSize bytes from the socket and dispatches
// the lines they end. Descriptors that a peer may attach are never received:
// the kernel closes them. Preconditions: c.receiveMu is held.
func (c *Client) receiveLocked(fd uintptr) (int, pumpState) {
	if c.Err() != nil {
		return 0, pumpEnded
	}
	n, err := receive(fd, c.buf)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return 0, pumpEmpty
	case err != nil:
		c.fail(fmt.Errorf("%w: %w", ErrDisconnected, err))
		return 0, pumpEnded
	case n == 0:
		c.fail(fmt.Errorf("%w: %w", ErrDisconnected, c.endOfStream()))
		return 0, pumpEnded
	}
	if err := c.lines.feed(c.buf[:n], c.dispatch); err != nil {
		c.fail(err)
		return n, pumpEnded
	}
	return n, pumpMore
}

// receive is recv(2) that does not block even if the descriptor would.
func receive(fd uintptr, p []byte) (int, error) {
	for {
		n, _, err := unix.Recvfrom(int(fd), p, unix.MSG_DONTWAIT)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// endOfStream says how the peer ended: between messages or within one.
// Preconditions: c.receiveMu is held.
func (c *Client) endOfStream() error {
	if c.lines.pending() {
		return io.ErrUnexpectedEOF
	}
	return io.EOF
}
