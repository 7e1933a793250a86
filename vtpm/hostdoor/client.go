// SPDX-License-Identifier: Apache-2.0

package hostdoor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/vtpm/door"
)

// DefaultTimeout is how long a question may take. A hardware TPM needs 200 to
// 600 ms for a quote, and machines that start together wait for each other.
const DefaultTimeout = 10 * time.Second

// A daemon that is away may be about to come back, as when it is replaced by a newer
// one: it is waited for a while. One that is busy is asked again until the end of
// Client.Timeout: it says so to a machine that starts often, and has an answer for it
// within seconds.
const (
	patience = 2 * time.Second
	retry    = 200 * time.Millisecond
)

// Client asks the host's daemon. Each question has a connection of its own, so the
// daemon may come and go. Its methods may be called from any goroutine.
type Client struct {
	// Socket is the path of the daemon's UNIX socket for backends.
	Socket string
	// Timeout bounds a question; zero is DefaultTimeout.
	Timeout time.Duration
}

// PCRs gives the host's PCRs as they are to be mapped.
func (c *Client) PCRs(ctx context.Context) (coproc.PCRMap, error) {
	var a door.PCRs
	if err := c.ask(ctx, door.OpPCRs, nil, &a); err != nil {
		return coproc.PCRMap{}, err
	}
	return ToMap(a)
}

// BootEvidence gives evidence of the host's boot for a run of the machine that has
// the slot. It is of at most abi.MaxBootEvidence bytes, and not empty.
func (c *Client) BootEvidence(ctx context.Context, slot string, run coproc.RunID) ([]byte, error) {
	var a door.BootEvidence
	err := c.ask(ctx, door.OpBootEvidence, door.BootEvidenceRequest{Slot: slot, Run: run[:]}, &a)
	switch n := len(a.Evidence); {
	case err != nil:
		return nil, err
	case n == 0:
		return nil, errors.New("the host's daemon gave no evidence")
	case n > abi.MaxBootEvidence:
		return nil, fmt.Errorf("the host's daemon gave evidence of %d bytes: a TPM holds %d", n, abi.MaxBootEvidence)
	}
	return a.Evidence, nil
}

func (c *Client) ask(ctx context.Context, op string, body, result any) error {
	timeout := c.Timeout
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for end := time.Now().Add(patience); ; {
		err := c.askOnce(ctx, op, body, result)
		code := refusal(err)
		if err == nil || final(code) || ctx.Err() != nil || code != door.CodeBusy && time.Now().After(end) {
			return err
		}
		select {
		case <-time.After(retry):
		case <-ctx.Done():
			return err // says more than that it is late
		}
	}
}

// refusal is the code of a daemon's answer; empty: there was no answer.
func refusal(err error) string {
	if e, answered := errors.AsType[*door.Error](err); answered {
		return e.Code
	}
	return ""
}

// final tells whether an answer is the daemon's last word. One that is told to end says
// that it is unavailable.
func final(code string) bool {
	return code != "" && code != door.CodeBusy && code != door.CodeUnavailable
}

func (c *Client) askOnce(ctx context.Context, op string, body, result any) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", c.Socket)
	if err != nil {
		return fmt.Errorf("the host's daemon is away: %w", err)
	}
	client := door.NewClient(conn)
	defer client.Close()
	return client.Call(ctx, op, body, result)
}
