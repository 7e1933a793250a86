// SPDX-License-Identifier: Apache-2.0

package qmp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

// request is a command on the wire (QMP spec "Issuing Commands").
type request struct {
	Command
	ID uint64 `json:"id"`
}

// Execute sends cmd, waits for its reply and decodes the reply's value into
// reply as encoding/json does. A nil reply discards the value. Commands of
// several goroutines may be under way at once; each gets its own reply.
//
// If the peer refuses, the error is an *Error. If ctx ends first, the error
// wraps ctx.Err(); the peer may or may not have executed the command, its late
// reply is dropped and the connection remains usable. Otherwise the error
// says why the connection ended, see Err.
//
// Execute waits for the peer. Never call it while the peer waits for the caller,
// such as QEMU during a vhost-user request: see Drain.
func (c *Client) Execute(ctx context.Context, cmd Command, reply any) error {
	return c.ExecuteWithFD(ctx, cmd, reply)
}

// ExecuteWithFD is Execute with open files sent beside the command's first byte
// (SCM_RIGHTS, unix(7)), for commands such as getfd and add-fd. The peer gets
// duplicates; the files remain the caller's, who may close them after return.
func (c *Client) ExecuteWithFD(ctx context.Context, cmd Command, reply any, fds ...*os.File) error {
	m, err := c.roundTrip(ctx, cmd, fds)
	if err != nil {
		return fmt.Errorf("qmp: %s: %w", cmd.Execute, err)
	}
	if m.Error != nil {
		m.Error.Command = cmd.Execute
		return m.Error
	}
	if reply == nil {
		return nil
	}
	if err := json.Unmarshal(m.Return, reply); err != nil {
		return fmt.Errorf("qmp: %s: reply: %w", cmd.Execute, err)
	}
	return nil
}

// roundTrip sends a command and waits for the message that answers it.
func (c *Client) roundTrip(ctx context.Context, cmd Command, fds []*os.File) (*message, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	waiter := make(chan *message, 1)
	id, err := c.register(waiter)
	if err != nil {
		return nil, err
	}
	defer c.unregister(id)
	frame, err := json.Marshal(request{cmd, id})
	if err != nil {
		return nil, err
	}
	if err := c.write(ctx, append(frame, '\n'), fds); err != nil {
		return nil, err
	}
	select {
	case m := <-waiter:
		return m, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-c.done:
		err = c.cause()
	}
	select {
	case m := <-waiter: // it came just before the end
		return m, nil
	default:
		return nil, err
	}
}

// register makes waiter the receiver of the reply to the returned id.
func (c *Client) register(waiter chan<- *message) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, errors.Unwrap(c.err)
	}
	id := c.nextID
	c.nextID++
	c.pending[id] = waiter
	return id, nil
}

func (c *Client) unregister(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pending, id)
}

// cause is Err without the package prefix, for wrapping into another message.
func (c *Client) cause() error { return errors.Unwrap(c.Err()) }
