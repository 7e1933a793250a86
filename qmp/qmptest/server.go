// SPDX-License-Identifier: Apache-2.0

package qmptest

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

// DefaultGreeting is what a Server says first unless told otherwise.
const DefaultGreeting = `{"QMP": {"version": {"qemu": {"major": 11, "minor": 1, "micro": 3}, "package": "qmptest"}, "capabilities": ["oob"]}}`

// Command is one command as the server received it.
type Command struct {
	Execute   string          `json:"execute"`
	Arguments json.RawMessage `json:"arguments"`
	ID        json.RawMessage `json:"id"`

	// Files are the descriptors that came with the command. The server owns
	// them and closes them when the test ends.
	Files []*os.File `json:"-"`
}

// Handler answers one command. It runs on the connection's own goroutine:
// while it runs, the server reads nothing more from that connection.
type Handler func(c *Conn, cmd Command)

// Server is a fake QMP server on a UNIX socket. Unless a Handler says
// otherwise it answers qmp_capabilities with an empty object and refuses
// every other command with CommandNotFound. All methods are safe for concurrent
// use.
type Server struct {
	tb   testing.TB
	ln   *net.UnixListener
	work sync.WaitGroup

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced when conns or commands grow
	closed   bool
	greeting string
	chunk    int
	handlers map[string]Handler
	conns    []*Conn
	commands []Command
}

// Start starts a server that lives until the test ends.
func Start(tb testing.TB) *Server {
	tb.Helper()
	dir, err := os.MkdirTemp("", "qmp") // tb.TempDir may be too long for sun_path
	if err != nil {
		tb.Fatal(err)
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "qmp.sock"), Net: "unix"})
	if err != nil {
		tb.Fatal(errors.Join(err, os.RemoveAll(dir)))
	}
	s := &Server{
		tb:       tb,
		ln:       ln,
		changed:  make(chan struct{}),
		greeting: DefaultGreeting,
		handlers: map[string]Handler{"qmp_capabilities": Return(struct{}{})},
	}
	s.work.Go(s.accept)
	tb.Cleanup(func() {
		s.Close()
		if err := os.RemoveAll(dir); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// Path returns the path of the server's socket.
func (s *Server) Path() string { return s.ln.Addr().String() }

// SetGreeting replaces the greeting of later connections; "" says nothing.
// It is sent as given, with a line end added.
func (s *Server) SetGreeting(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.greeting = line
}

// SetChunk makes later connections write at most n bytes at a time; 0 means no
// limit. With 1, every byte is a write of its own.
func (s *Server) SetChunk(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.chunk = n
}

// Handle sets the handler of one command, for every connection.
func (s *Server) Handle(execute string, h Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handlers[execute] = h
}

// Commands returns what was received so far, in order, over all connections.
func (s *Server) Commands() []Command {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.commands)
}

// WaitCommand waits until the command was received for the nth time, counted
// from 1, and returns it. The test fails at once if ctx ends or the server is
// closed before, so it must be called from the test's goroutine.
func (s *Server) WaitCommand(ctx context.Context, execute string, nth int) Command {
	s.tb.Helper()
	var found Command
	ok := s.wait(ctx, func() bool {
		seen := 0
		for _, c := range s.commands {
			if c.Execute == execute {
				if seen++; seen == nth {
					found = c
					return true
				}
			}
		}
		return false
	})
	if !ok {
		s.tb.Fatalf("qmptest: %s was not received %d times", execute, nth)
	}
	return found
}

// WaitConn waits for the nth connection, counted from 1. It fails like
// WaitCommand.
func (s *Server) WaitConn(ctx context.Context, nth int) *Conn {
	s.tb.Helper()
	var found *Conn
	ok := s.wait(ctx, func() bool {
		if len(s.conns) < nth {
			return false
		}
		found = s.conns[nth-1]
		return true
	})
	if !ok {
		s.tb.Fatalf("qmptest: connection %d was not made", nth)
	}
	return found
}

// Event sends an event to every connection, whatever its state, and returns when it
// is written. data may be nil.
func (s *Server) Event(name string, data any) {
	s.mu.Lock()
	conns := slices.Clone(s.conns)
	s.mu.Unlock()
	for _, c := range conns {
		c.Event(name, data)
	}
}

// Close closes the listener and all connections and waits for the handlers.
// Idempotent.
func (s *Server) Close() {
	s.mu.Lock()
	first := !s.closed
	if first {
		s.closed = true
		s.notifyLocked()
	}
	conns := slices.Clone(s.conns)
	s.mu.Unlock()
	if first {
		_ = s.ln.Close() // a listener that is gone already is as good
	}
	for _, c := range conns {
		c.Close()
	}
	s.work.Wait()
}

func (s *Server) accept() {
	for {
		conn, err := s.ln.AcceptUnix()
		if err != nil {
			return
		}
		if c := s.add(conn); c != nil {
			s.work.Go(c.serve)
		}
	}
}

// add registers a connection; nil if the server is closed.
func (s *Server) add(conn *net.UnixConn) *Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = conn.Close() // never used
		return nil
	}
	c := &Conn{server: s, conn: conn, chunk: s.chunk, greeting: s.greeting, done: make(chan struct{})}
	s.conns = append(s.conns, c)
	s.notifyLocked()
	return c
}

// record stores a command and returns who handles it.
func (s *Server) record(cmd Command) Handler {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commands = append(s.commands, cmd)
	s.notifyLocked()
	if h := s.handlers[cmd.Execute]; h != nil {
		return h
	}
	return Refuse("CommandNotFound", "The command "+cmd.Execute+" has not been found")
}

func (s *Server) notifyLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// wait calls ready, under the lock, whenever something changed, until it
// returns true, ctx ends or the server is closed.
func (s *Server) wait(ctx context.Context, ready func() bool) bool {
	for {
		s.mu.Lock()
		if ready() {
			s.mu.Unlock()
			return true
		}
		changed, closed := s.changed, s.closed
		s.mu.Unlock()
		if closed {
			return false
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}
