// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/card"
)

// conn is one client's connection.
type conn struct {
	cfg     *Config
	sock    *net.UnixConn
	session Session

	in      [abi.MaxMessage + 1]byte // one more, to notice what is too long
	out     [abi.MaxMessage]byte
	payload [abi.MaxPayload]byte
}

// serve serves the client until it hangs up, which is no error, breaks a rule,
// or ctx ends. What is being executed then is still answered.
func (c *conn) serve(ctx context.Context) error {
	defer c.session.Close()
	defer context.AfterFunc(ctx, func() { c.sock.SetReadDeadline(time.Unix(1, 0)) })()
	c.sock.SetReadDeadline(time.Now().Add(c.cfg.FirstTimeout))
	for first := true; ctx.Err() == nil; first = false {
		// No room is given for descriptors: the kernel closes those that
		// come along.
		n, err := c.sock.Read(c.in[:])
		switch {
		case errors.Is(err, io.EOF), err != nil && ctx.Err() != nil, errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("receive: %w", err)
		}
		if first {
			c.sock.SetReadDeadline(time.Time{})
		}
		if err := c.answer(ctx, c.in[:n]); err != nil {
			return err
		}
	}
	return nil
}

// answer executes one packet. An error ends the connection.
func (c *conn) answer(ctx context.Context, packet []byte) error {
	msg, grant, err := c.execute(ctx, packet)
	if err != nil {
		return err
	}
	var rights []byte
	if grant != nil {
		defer grant.Close() // what was sent is the client's, and what wasn't nobody's
		rights = unix.UnixRights(int(grant.Data.Fd()), int(grant.Control.Fd()))
	}
	c.sock.SetWriteDeadline(time.Now().Add(c.cfg.SendTimeout))
	if _, _, err := c.sock.WriteMsgUnix(msg, rights, nil); err != nil {
		if errors.Is(err, unix.EPIPE) {
			return nil // it hung up: the next read says so
		}
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// execute executes one packet and gives the packet of the answer.
func (c *conn) execute(ctx context.Context, packet []byte) ([]byte, *card.Grant, error) {
	sub, err := abi.ParseSubmission(packet)
	if err != nil {
		return nil, nil, err
	}
	r := c.session.Do(ctx, &sub, c.payload[:0])
	done := abi.Completion{Op: sub.Op, Status: r.Status, Slot: sub.Slot, Seq: sub.Seq, Payload: r.Payload}
	if len(r.Payload) > abi.MaxPayload {
		if r.Grant != nil {
			r.Grant.Close()
		}
		return nil, nil, fmt.Errorf("answer of %d bytes: %w", len(r.Payload), abi.ErrMalformed)
	}
	return abi.AppendCompletion(c.out[:0], &done), r.Grant, nil
}
