// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/firmware/card"
)

// Server serves clients of a card. Its methods may be called from any
// goroutine.
type Server struct {
	cfg     Config
	refused quiet
	broken  quiet

	mu    sync.Mutex // guards what follows
	total int        // connections of users that are no administrators
	users map[uint32]int
	stats Stats
}

// Stats counts connections.
type Stats struct {
	Open     int    // now
	Accepted uint64 // served since the start
	Refused  uint64 // over a limit
	Broken   uint64 // ended because the client broke a rule
}

// New makes a server.
func New(cfg Config) (*Server, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	return &Server{cfg: cfg, users: map[uint32]int{}}, nil
}

// Stats gives the counts of now.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// acceptPause is how long to wait when the system has no more descriptors.
const acceptPause = 100 * time.Millisecond

// Serve serves the clients of l, a socket of type SOCK_SEQPACKET, until ctx ends
// or l is closed, which are no errors. It closes l, and returns when all
// connections have ended.
func (s *Server) Serve(ctx context.Context, l *net.UnixListener) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	defer l.Close()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		sock, err := l.AcceptUnix()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case passing(err):
			s.cfg.Logger.Warn("a client cannot be accepted now", "error", err)
			time.Sleep(acceptPause)
		case err != nil:
			return fmt.Errorf("accept client: %w", err)
		default:
			wg.Go(func() { s.serveConn(ctx, sock) })
		}
	}
}

// passing tells whether accept may work again later.
func passing(err error) bool {
	for _, e := range []unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// serveConn serves one client.
func (s *Server) serveConn(ctx context.Context, sock *net.UnixConn) {
	defer sock.Close()
	who, err := peerCredentials(sock)
	if err != nil {
		s.cfg.Logger.Warn("a client is refused", "error", err)
		return
	}
	admin := s.cfg.Policy.admin(who)
	if !s.enter(who.uid, admin) {
		s.refused.say(s.cfg.Logger, "too many connections: a client is refused", "client", who.String())
		return
	}
	defer s.leave(who.uid, admin)
	c := &conn{cfg: &s.cfg, sock: sock, session: s.cfg.Open(card.Principal{Admin: admin, Name: who.String()})}
	if err := c.serve(ctx); err != nil {
		s.mu.Lock()
		s.stats.Broken++
		s.mu.Unlock()
		s.broken.say(s.cfg.Logger, "connection of a client is ended", "client", who.String(), "error", err)
	}
}

// enter counts a connection, unless it is one too many.
func (s *Server) enter(uid uint32, admin bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users[uid] >= s.cfg.MaxConnsPerUser || !admin && s.total >= s.cfg.MaxConns {
		s.stats.Refused++
		return false
	}
	s.users[uid]++
	s.stats.Open++
	s.stats.Accepted++
	if !admin {
		s.total++
	}
	return true
}

// leave undoes enter.
func (s *Server) leave(uid uint32, admin bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Open--
	if s.users[uid]--; s.users[uid] == 0 {
		delete(s.users, uid)
	}
	if !admin {
		s.total--
	}
}
