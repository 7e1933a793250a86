// SPDX-License-Identifier: Apache-2.0

package unixsock

import (
	"context"
	"net"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// maxWaiting bounds who is accepted and not served yet.
const maxWaiting = 16

// AcceptSpeakers is Accept for protocols in which who connects speaks first: it gives
// peers to serve once they have sent something, one after the other. Who stays silent
// keeps nobody else away, and who hangs up without a word is never served. If too many
// wait, the one that has been silent for the longest time is hung up on.
func AcceptSpeakers(ctx context.Context, ln *net.UnixListener, failed func(error), serve func(*net.UnixConn)) error {
	waiting, done := context.WithCancel(ctx)
	l := lobby{places: make(chan struct{}, maxWaiting), spoken: make(chan *net.UnixConn)}
	var served sync.WaitGroup
	served.Go(func() {
		for c := range l.spoken {
			serve(c)
		}
	})
	err := Accept(ctx, ln, failed, func(c *net.UnixConn) { l.enter(waiting, c) })
	done()
	l.peers.Wait()
	close(l.spoken)
	served.Wait()
	return err
}

// lobby is where peers wait that are not served yet.
type lobby struct {
	places chan struct{} // one for each
	spoken chan *net.UnixConn
	peers  sync.WaitGroup

	mu     sync.Mutex
	silent []*net.UnixConn // in the order in which they came
}

// enter takes over c, and waits for a place for it.
func (l *lobby) enter(ctx context.Context, c *net.UnixConn) {
	select {
	case l.places <- struct{}{}:
	default:
		l.hangUp()
		select {
		case l.places <- struct{}{}:
		case <-ctx.Done():
			_ = c.Close()
			return
		}
	}
	l.mu.Lock()
	l.silent = append(l.silent, c)
	l.mu.Unlock()
	l.peers.Go(func() {
		defer func() { <-l.places }()
		l.wait(ctx, c)
	})
}

// hangUp ends the wait of who has been silent for the longest time, if anybody is.
func (l *lobby) hangUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.silent) > 0 {
		_ = l.silent[0].Close()
	}
}

// wait waits for c to speak, and then to be served.
func (l *lobby) wait(ctx context.Context, c *net.UnixConn) {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	ok := Speaks(c)
	l.mu.Lock()
	l.silent = slices.DeleteFunc(l.silent, func(s *net.UnixConn) bool { return s == c })
	l.mu.Unlock()
	if ok && stop() {
		select {
		case l.spoken <- c:
			return
		case <-ctx.Done():
		}
	}
	_ = c.Close()
}

// Speaks waits for the first byte from c and leaves it there. It is false if c hangs
// up without one, or is closed.
func Speaks(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	var peekErr error
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		for {
			n, _, peekErr = unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
			if peekErr != unix.EINTR {
				return peekErr != unix.EAGAIN
			}
		}
	})
	return err == nil && peekErr == nil && n > 0
}
