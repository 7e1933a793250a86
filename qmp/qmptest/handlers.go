// SPDX-License-Identifier: Apache-2.0

package qmptest

import "time"

// Return is a handler that answers with a value.
func Return(value any) Handler {
	return func(c *Conn, cmd Command) { c.Reply(cmd, value) }
}

// Refuse is a handler that answers with an error.
func Refuse(class, desc string) Handler {
	return func(c *Conn, cmd Command) { c.Refuse(cmd, class, desc) }
}

// Ignore is a handler that never answers; the connection works on.
func Ignore() Handler { return func(*Conn, Command) {} }

// Stall is a handler that never answers and reads nothing more, as a stopped
// QEMU process does.
func Stall() Handler { return func(c *Conn, _ Command) { <-c.Done() } }

// Hangup is a handler that closes the connection instead of answering.
func Hangup() Handler { return func(c *Conn, _ Command) { c.Close() } }

// Raw is a handler that writes the given bytes instead of an answer.
func Raw(p string) Handler { return func(c *Conn, _ Command) { c.Raw([]byte(p)) } }

// Delay is a handler that runs another one after a while. The connection reads
// on in between, so later commands may be answered earlier.
func Delay(d time.Duration, h Handler) Handler {
	return func(c *Conn, cmd Command) {
		c.server.work.Go(func() {
			t := time.NewTimer(d)
			defer t.Stop()
			select {
			case <-t.C:
				h(c, cmd)
			case <-c.Done():
			}
		})
	}
}

// Sequence is a handler that uses each handler once, in turn, and then the last
// one for ever.
func Sequence(handlers ...Handler) Handler {
	next := make(chan int, 1)
	next <- 0
	return func(c *Conn, cmd Command) {
		i := <-next
		next <- min(i+1, len(handlers)-1)
		handlers[i](c, cmd)
	}
}

// EventThen is a handler that sends an event before another handler runs.
func EventThen(name string, data any, h Handler) Handler {
	return func(c *Conn, cmd Command) {
		c.Event(name, data)
		h(c, cmd)
	}
}
