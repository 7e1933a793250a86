// SPDX-License-Identifier: Apache-2.0

package door

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"sync"
)

// Client asks through a channel. Its methods may be called from any goroutine;
// calls take turns.
type Client struct {
	rw     io.ReadWriteCloser
	in     *lines
	turn   chan struct{} // holds one token while a call is under way
	once   sync.Once
	closed chan struct{}
}

// NewClient takes over rw.
func NewClient(rw io.ReadWriteCloser) *Client {
	return &Client{rw: rw, in: newLines(rw, MaxAnswer), turn: make(chan struct{}, 1), closed: make(chan struct{})}
}

// Close ends the client and a call that is under way. It is idempotent.
func (c *Client) Close() error {
	var err error
	c.once.Do(func() {
		close(c.closed)
		err = c.rw.Close()
	})
	return err
}

// Call has op done with a body (nil: none) and stores what it gives in result (nil:
// dropped). If ctx ends during the call, the client is closed: a channel can't take
// back half a request. Errors: *Error (the other side's answer), ErrClosed, the
// context's, and of what can't be marshalled.
func (c *Client) Call(ctx context.Context, op string, body, result any) error {
	id := rand.Text()
	line, err := ask(id, op, body)
	if err != nil {
		return fmt.Errorf("door: %s: %w", op, err)
	}
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return fmt.Errorf("door: %s: %w", op, context.Cause(ctx))
	}
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	a, err := c.exchange(id, line)
	switch {
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("door: %s: %w", op, context.Cause(ctx))
	case err != nil:
		return fmt.Errorf("door: %s: %w", op, err)
	case a.Code != "":
		if !codes[a.Code] {
			a.Code = CodeInternal
		}
		return &Error{Op: op, Code: a.Code, Message: plain(a.Error)}
	case result == nil:
		return nil
	}
	if err := json.Unmarshal(a.Result, result); err != nil {
		return fmt.Errorf("door: %s: the answer can't be read: %w", op, err)
	}
	return nil
}

// ask makes a request's line.
func ask(id, op string, body any) ([]byte, error) {
	r := request{ID: id, Op: op}
	if body != nil {
		var err error
		if r.Body, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	return frame(r, MaxRequest)
}

// exchange sends a request and waits for its answer. A channel that failed is
// closed, since what is left in it is unknown.
func (c *Client) exchange(id string, line []byte) (answer, error) {
	select {
	case <-c.closed:
		return answer{}, ErrClosed
	default:
	}
	if _, err := c.rw.Write(line); err != nil {
		return answer{}, c.fail(err)
	}
	for {
		line, err := c.in.next()
		if err != nil {
			return answer{}, c.fail(err)
		}
		if a, err := parseAnswer(line); err == nil && a.ID == id {
			return a, nil
		}
	}
}

func (c *Client) fail(err error) error {
	_ = c.Close()
	return fmt.Errorf("%w: %w", ErrClosed, err)
}
