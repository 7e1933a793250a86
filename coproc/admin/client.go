// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"errors"
	"fmt"
	"os"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
)

// Client gives admin commands to a card. It may be used from any goroutine if
// its Conn may.
type Client struct{ conn Conn }

// New gives a client over conn, which stays the caller's to close.
func New(conn Conn) *Client { return &Client{conn: conn} }

// call executes a command whose answer is its payload alone.
func (c *Client) call(ctx context.Context, sub abi.Submission) ([]byte, error) {
	payload, files, err := c.conn.Command(ctx, &sub)
	if err != nil {
		return nil, err
	}
	if len(files) > 0 {
		closeFiles(files)
		return nil, failed(sub.Op, "", fmt.Errorf("%d descriptors came along: %w", len(files), abi.ErrMalformed))
	}
	return payload, nil
}

// ask executes a command and reads the answer.
func ask[T any](ctx context.Context, c *Client, sub abi.Submission, slot string, parse func([]byte) (T, error)) (T, error) {
	var zero T
	payload, err := c.call(ctx, sub)
	if err != nil {
		return zero, failed(sub.Op, slot, err)
	}
	v, err := parse(payload)
	if err != nil {
		return zero, failed(sub.Op, slot, err)
	}
	return v, nil
}

// empty is the parser of an answer that has nothing in it.
func empty(b []byte) (struct{}, error) {
	if len(b) != 0 {
		return struct{}{}, fmt.Errorf("answer of %d bytes to a command that has none: %w", len(b), abi.ErrMalformed)
	}
	return struct{}{}, nil
}

// failed makes err a *coproc.Error that names slot.
func failed(op abi.Opcode, slot string, err error) error {
	if e, ok := errors.AsType[*coproc.Error](err); ok {
		named := *e
		named.Slot = slot
		return &named
	}
	return &coproc.Error{Op: opName(op), Slot: slot, Err: err}
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// Identify describes the card.
func (c *Client) Identify(ctx context.Context) (abi.CardIdentity, error) {
	return ask(ctx, c, abi.Submission{Op: abi.OpCardIdentify}, "", abi.ParseCardIdentity)
}

// Counters gives what the card has counted since its start.
func (c *Client) Counters(ctx context.Context) (abi.CardCounters, error) {
	return ask(ctx, c, abi.Submission{Op: abi.OpCardCounters}, "", abi.ParseCardCounters)
}

// Health gives the state of the card. It is not signed: see [Client.Statement].
func (c *Client) Health(ctx context.Context) (abi.CardHealth, error) {
	return ask(ctx, c, abi.Submission{Op: abi.OpCardHealth}, "", abi.ParseCardHealth)
}

// checkName spares the card a name that no slot can have.
func checkName(op abi.Opcode, name string) error {
	if abi.ValidName(name) {
		return nil
	}
	return failed(op, "", fmt.Errorf("no slot can be called %q: %w", name, coproc.ErrNotFound))
}
