// SPDX-License-Identifier: Apache-2.0

package emulator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/coproc"
	"hwvtpm/internal/unixsock"
)

// ErrBusy: another session is live. A slot has one machine at a time.
var ErrBusy = errors.New("emulator: another session is live")

// Peer is the process at the other end of the control socket. The fields are
// what the kernel says (SO_PEERCRED); PID is 0 if the process is of another
// pid namespace.
type Peer struct {
	PID int
	UID uint32
}

// Config is what a Server needs.
type Config struct {
	// Slot is the TPM; required. The server does not close it. A slot that
	// is a StateMover can migrate within QEMU's stream. A Holder is, and can
	// be handed over to another process that way. One that is a coproc.Hasher
	// takes hash sequences.
	Slot coproc.Slot

	// OnConnect is called when a peer has said its first word, and names
	// the run that its power-on begins; required. See vtpm.PeerRun.
	OnConnect func(Peer) coproc.RunID

	// OnDisconnect is called when a session has ended; nil: it is not. err
	// is nil if the peer ended it in order.
	OnDisconnect func(err error)

	// OnDataEnd is called when a data channel has ended, which the peer may
	// do before its session does, and the session does at its end; nil: it
	// is not. It must not wait for anything. ServeConn returns after it.
	OnDataEnd func()

	// Patience is how long a peer may take to send the rest of a request
	// that it has begun, and to take an answer, before the session ends.
	// QEMU sends a request in one piece and a state blob in two. 0: 10 s.
	Patience time.Duration

	// Logger gets one line for each thing that an operator wants to know;
	// nil: none. Nothing is logged per command that went well.
	Logger hclog.Logger
}

// Server serves one slot to one QEMU at a time. Its methods may be called from
// any goroutine.
type Server struct {
	cfg      Config
	mover    StateMover    // nil if the slot is none
	lender   lender        // nil if the slot is none
	hasher   coproc.Hasher // nil if the slot is none
	caps     uint32
	counters counters

	seat    unixsock.Seat // of the session, which alone uses what follows
	powered bool
	run     coproc.RunID // of the last PowerOn
}

// NewServer checks cfg. The slot is not touched before a machine's INIT.
func NewServer(cfg Config) (*Server, error) {
	if cfg.Slot == nil || cfg.OnConnect == nil {
		return nil, errors.New("emulator: a server needs a slot and OnConnect")
	}
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	if cfg.Patience <= 0 {
		cfg.Patience = 10 * time.Second
	}
	s := &Server{cfg: cfg, caps: capsAlways}
	if m, ok := cfg.Slot.(StateMover); ok {
		s.mover = m
		s.lender, _ = cfg.Slot.(lender)
		s.caps |= capsMover
	}
	if h, ok := cfg.Slot.(coproc.Hasher); ok {
		s.hasher = h
		s.caps |= capsHasher
	}
	return s, nil
}

// Serve serves the machines that connect to ln, one after the other; who
// connects meanwhile waits, and who says nothing keeps nobody away. A session that
// fails is logged and ends nothing but itself. Serve returns nil when ctx ends, and
// an error when ln is closed under it. It does not close ln, but leaves it with an
// accept deadline in the past.
func (s *Server) Serve(ctx context.Context, ln *net.UnixListener) error {
	failed := func(err error) { s.cfg.Logger.Error("accept failed", "error", err) }
	err := unixsock.AcceptSpeakers(ctx, ln, failed, func(c *net.UnixConn) {
		if err := s.ServeConn(ctx, c); err != nil {
			s.cfg.Logger.Error("session failed", "error", err)
		}
	})
	if err != nil {
		err = fmt.Errorf("emulator: %w", err)
	}
	return err
}

// ServeConn serves one machine on its control socket c, which it takes over and
// closes. It returns nil after SHUTDOWN, when the peer hangs up between two
// requests and when ctx ends; ErrBusy if another session is live. Before it
// returns the TPM was shut down in order and no goroutine of the session runs.
func (s *Server) ServeConn(ctx context.Context, c *net.UnixConn) error {
	defer c.Close()
	free, ok := s.seat.Take()
	if !ok {
		return ErrBusy
	}
	defer free()
	peer, err := peerOf(c)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	session := newSession(s, c)
	err = session.serve(peer)
	if ctx.Err() != nil {
		err = nil
	}
	if session.greeted && s.cfg.OnDisconnect != nil {
		s.cfg.OnDisconnect(err)
	}
	return err
}

func peerOf(c *net.UnixConn) (Peer, error) {
	cred, err := unixsock.Peer(c)
	if err != nil {
		return Peer{}, fmt.Errorf("emulator: %w", err)
	}
	return Peer{PID: int(cred.Pid), UID: cred.Uid}, nil
}
