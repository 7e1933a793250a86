// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"context"
	"fmt"
	"net"
	"sync"

	"hwvtpm/internal/unixsock"
)

// Server serves one device to one front-end at a time. Its methods are safe
// for concurrent use.
type Server struct {
	cfg     Config
	channel channel
	seat    unixsock.Seat // of the session

	mu     sync.Mutex
	closed bool
	nextID int
	cancel map[int]context.CancelFunc // of the calls in progress
	calls  sync.WaitGroup
}

// NewServer checks cfg and fills in its defaults.
func NewServer(cfg Config) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Server{cfg: cfg, cancel: make(map[int]context.CancelFunc)}, nil
}

// enter registers a call that Close must end and wait for.
func (s *Server) enter(ctx context.Context) (context.Context, func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, ErrClosed
	}
	ctx, cancel := context.WithCancel(ctx)
	id := s.nextID
	s.nextID++
	s.cancel[id] = cancel
	s.calls.Add(1)
	leave := func() {
		s.mu.Lock()
		delete(s.cancel, id)
		s.mu.Unlock()
		cancel()
		s.calls.Done()
	}
	return ctx, leave, nil
}

// Serve accepts front-ends on ln, one after the other; others wait meanwhile. Who
// connects and says nothing keeps nobody away, and is hung up on when too many do
// that. A session that fails is logged and ends nothing but itself. Serve returns nil
// when ctx ends or the server is closed, and an error when ln is closed under it. It
// does not close ln, but leaves it with an accept deadline in the past.
func (s *Server) Serve(ctx context.Context, ln *net.UnixListener) error {
	ctx, leave, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	failed := func(err error) { s.cfg.Logger.Error("accept failed", "error", err) }
	err = unixsock.AcceptSpeakers(ctx, ln, failed, func(c *net.UnixConn) {
		if err := s.session(ctx, c); err != nil && ctx.Err() == nil {
			s.cfg.Logger.Error("session failed", "error", err)
		}
	})
	if err != nil {
		err = fmt.Errorf("vhost-user: %w", err)
	}
	return err
}

// ServeConn serves one session on c, which it takes over and closes. It
// returns nil when the front-end hangs up between two messages, when ctx ends,
// or when the server is closed; ErrBusy if another session is live.
func (s *Server) ServeConn(ctx context.Context, c *net.UnixConn) error {
	ctx, leave, err := s.enter(ctx)
	if err != nil {
		_ = c.Close()
		return err
	}
	defer leave()
	return s.session(ctx, c)
}

// session runs one session from its credentials to its end.
func (s *Server) session(ctx context.Context, c *net.UnixConn) error {
	defer c.Close()
	free, ok := s.seat.Take()
	if !ok {
		return ErrBusy
	}
	defer free()
	// Closing the socket is what unblocks the session goroutine; ctx also
	// hurries rings that are stopping.
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()

	// Who hangs up without a word only wanted to know whether anybody listens, and
	// must not count as a front-end: a device may take a new one for a new machine.
	if !unixsock.Speaks(c) {
		return nil
	}
	peer, err := peerOf(c)
	if err != nil {
		return &Error{Queue: -1, Err: err}
	}
	log := s.cfg.Logger.With("peer_pid", peer.PID)
	if s.cfg.OnConnect != nil {
		if err := s.cfg.OnConnect(ctx, peer); err != nil {
			return &Error{Queue: -1, Err: fmt.Errorf("front-end refused: %w", err)}
		}
	}
	log.Info("front-end connected", "peer_uid", peer.UID)
	err = newSession(ctx, &s.cfg, newConn(c), log, &s.channel).serve()
	if ctx.Err() != nil {
		err = nil
	}
	log.Info("front-end disconnected")
	if s.cfg.OnDisconnect != nil {
		s.cfg.OnDisconnect(err)
	}
	return err
}

// ConfigChanged tells the front-end that config space changed
// (VHOST_USER_BACKEND_CONFIG_CHANGE_MSG). It never blocks. ErrNoChannel means
// that there is nobody to tell, which is mostly fine: a front-end that comes
// later reads config space afresh.
func (s *Server) ConfigChanged() error { return s.channel.send(backendConfigChange) }

// Close ends all calls of Serve and ServeConn and waits until they have
// returned, so no ring runs afterwards. It must not be called from a Device
// method or a callback of Config. A second Close does nothing.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	for _, cancel := range s.cancel {
		cancel()
	}
	s.mu.Unlock()
	s.calls.Wait()
	return nil
}

// peerOf asks the kernel who made the connection.
func peerOf(c *net.UnixConn) (Peer, error) {
	cred, err := unixsock.Peer(c)
	if err != nil {
		return Peer{}, err
	}
	return Peer{PID: int(cred.Pid), UID: cred.Uid, GID: cred.Gid}, nil
}
