// SPDX-License-Identifier: Apache-2.0

package gates

import (
	"context"
	"io"
	"net"
	"os"
	"strconv"
	"sync"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"hwvtpm/internal/places"
	"hwvtpm/internal/unixsock"
	"hwvtpm/vtpm/door"
)

// Config is what a Gate is made of.
type Config struct {
	Path string
	Mode os.FileMode
	GID  int // group of the socket; -1: the process's

	VM      string // whose channel it is; or empty
	Handler door.Handler
	// Most is how many connections there may be at a time; others are closed. Each is
	// how many of these one process may have at a UNIX socket; zero: all.
	Most, Each int
	// Slow bounds what a caller sends: see throttle. For guests.
	Slow bool
	// Admit says whether a peer may ask. nil: who can connect may.
	Admit func(*unix.Ucred) error

	Logger hclog.Logger
}

// Gate is a socket that is served.
type Gate struct {
	cfg    Config
	ln     *net.UnixListener
	cancel context.CancelFunc
	wg     sync.WaitGroup
	sent   meter
}

// Open makes a socket, in place of one that a dead process left, and serves it until
// Close.
func Open(cfg Config) (*Gate, error) {
	ln, err := unixsock.ListenAs(unixsock.Stream, cfg.Path, cfg.Mode, -1, cfg.GID)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	g := &Gate{cfg: cfg, ln: ln, cancel: cancel}
	g.wg.Go(func() { g.serve(ctx) })
	return g, nil
}

// Close removes the socket, ends all connections, and waits for what is under way. It
// is idempotent.
func (g *Gate) Close() error {
	g.cancel()
	g.ln.Close()
	g.wg.Wait()
	return nil
}

func (g *Gate) serve(ctx context.Context) {
	each := g.cfg.Each
	if each == 0 {
		each = g.cfg.Most
	}
	taken := places.New(g.cfg.Most, each)
	failed := func(err error) { g.cfg.Logger.Warn("accept", "socket", g.cfg.Path, "error", err) }
	err := unixsock.Accept(ctx, g.ln, failed, func(c *net.UnixConn) {
		peer, err := unixsock.Peer(c)
		if err != nil {
			c.Close() // it has gone
			return
		}
		leave, ok := taken.Enter(strconv.Itoa(int(peer.Pid)))
		if !ok {
			c.Close()
			return
		}
		g.wg.Go(func() {
			defer leave()
			g.connection(ctx, c, peer)
		})
	})
	if err != nil && ctx.Err() == nil {
		g.cfg.Logger.Error("a socket is lost", "socket", g.cfg.Path, "error", err)
	}
}

func (g *Gate) connection(ctx context.Context, c *net.UnixConn, peer *unix.Ucred) {
	defer c.Close()
	if g.cfg.Admit != nil {
		if err := g.cfg.Admit(peer); err != nil {
			g.cfg.Logger.Warn("a caller is turned away", "socket", g.cfg.Path, "error", err)
			return
		}
	}
	g.cfg.talk(ctx, c, door.Caller{VM: g.cfg.VM, UID: int(peer.Uid)}, &g.sent)
}

// talk answers what comes by one connection, and counts it.
func (c *Config) talk(ctx context.Context, rw io.ReadWriteCloser, caller door.Caller, sent *meter) {
	if c.Slow {
		rw = &throttle{ReadWriteCloser: rw, ctx: ctx, sent: sent}
	}
	if err := door.Serve(ctx, rw, caller, c.Handler); err != nil {
		c.Logger.Debug("a connection ended", "vm", caller.VM, "error", err)
	}
}
