// SPDX-License-Identifier: Apache-2.0

package unixsock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"
)

// acceptRetry is the pause after a failed accept, mostly for want of
// descriptors, which others may give back.
const acceptRetry = 100 * time.Millisecond

// Accept gives those who connect to ln to serve, one after the other; who connects
// meanwhile waits in the listen queue. failed is told of each accept that failed,
// which ends nothing. Accept returns nil when ctx ends, and an error when ln is
// closed under it. It does not close ln, but leaves it with a deadline in the past.
func Accept(ctx context.Context, ln *net.UnixListener, failed func(error), serve func(*net.UnixConn)) error {
	defer context.AfterFunc(ctx, func() { _ = ln.SetDeadline(time.Now()) })()
	for {
		c, err := ln.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = c.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept: %w", err)
		case err != nil:
			failed(err)
			sleep(ctx, acceptRetry)
			continue
		}
		serve(c)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// Seat is taken by one at a time. The zero value is free.
type Seat struct{ taken atomic.Bool }

// Take takes the seat and gives what frees it; false if somebody has it.
func (s *Seat) Take() (free func(), ok bool) {
	if !s.taken.CompareAndSwap(false, true) {
		return nil, false
	}
	return func() { s.taken.Store(false) }, true
}
