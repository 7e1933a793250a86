// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/vtpm/emulator"
)

// front is what the world sees of the TPM: the control channel, and with
// --server a socket for commands.
type front struct {
	cfg    *socketConfig
	log    hclog.Logger
	server *emulator.Server
	ctrl   *arrivals // nil: none
	data   *arrivals // nil: none
}

func (f *front) listen() (err error) {
	if f.cfg.ctrl.given() {
		if f.ctrl, err = f.cfg.ctrl.open(); err != nil {
			return fmt.Errorf("control channel: %w", err)
		}
	}
	if f.cfg.server.given() {
		if f.data, err = f.cfg.server.open(); err != nil {
			return fmt.Errorf("server socket: %w", err)
		}
	}
	return nil
}

func (f *front) close() {
	for _, a := range []*arrivals{f.ctrl, f.data} {
		if a != nil {
			a.close()
		}
	}
}

// serve serves until ctx ends, or the TPM is to end.
func (f *front) serve(ctx context.Context) error {
	defer context.AfterFunc(ctx, f.close)()
	if f.data == nil && f.cfg.terminate && !f.cfg.init && f.cfg.ctrl.network != "tcp" {
		return f.serveOne(ctx)
	}
	return f.serveMany(ctx)
}

// serveOne serves a machine as libvirt starts it: one control connection, and
// the TPM ends with it.
func (f *front) serveOne(ctx context.Context) error {
	conn, err := f.ctrl.next()
	if ctx.Err() != nil {
		if err == nil {
			conn.Close()
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("control channel: %w", err)
	}
	f.ctrl.close() // nobody else comes in, so nobody shall wait
	c, ok := conn.(*net.UnixConn)
	if !ok {
		conn.Close()
		return errors.New("control channel: not a UNIX socket")
	}
	return f.server.ServeConn(ctx, c)
}

// serveMany serves control connections that come and go, and commands from
// elsewhere, while the TPM stays as it is. To the server all that is one session.
func (f *front) serveMany(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ours, theirs, err := unixPair()
	if err != nil {
		return err
	}
	defer ours.Close()
	defer context.AfterFunc(ctx, func() { ours.Close(); f.close() })()
	over := make(chan error, 1)
	go func() {
		over <- f.server.ServeConn(ctx, theirs)
		cancel()
	}()
	err = f.relay(ctx, cancel, ours)
	cancel()
	return errors.Join(err, <-over)
}

// relay prepares the session and passes on what comes, until ctx ends.
func (f *front) relay(ctx context.Context, cancel func(), inner *net.UnixConn) error {
	r := newRelay(inner)
	if err := f.prepare(r); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer context.AfterFunc(ctx, r.hangUp)()
	go r.answers()
	if f.ctrl != nil {
		go f.each(ctx, cancel, f.ctrl, r.control)
	}
	if f.data != nil {
		go f.each(ctx, cancel, f.data, func(c net.Conn) { r.commands(c, f.cfg.server.disconnect) })
	}
	<-ctx.Done()
	return nil
}

// each serves connections one after the other, until one ends the TPM.
func (f *front) each(ctx context.Context, cancel func(), a *arrivals, serve func(net.Conn)) {
	for ctx.Err() == nil {
		conn, err := a.next()
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, errNoMore) {
				f.log.Error("no more connections are taken", "error", err)
			}
			break
		}
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		serve(conn)
		conn.Close()
		stop()
		if f.cfg.terminate {
			break
		}
	}
	cancel()
}

// prepare brings the TPM to where --flags wants it.
func (f *front) prepare(r *relay) error {
	if f.data == nil && !f.cfg.init {
		return nil
	}
	c := &control{conn: r.inner}
	if f.data != nil || f.cfg.startup >= 0 {
		if err := r.openData(c); err != nil {
			return err
		}
	}
	if f.cfg.init {
		if _, err := c.ask(cmdInit, make([]byte, 4), 0); err != nil {
			return err
		}
	}
	if f.cfg.startup >= 0 {
		startup := []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x44, 0, byte(f.cfg.startup)}
		resp, err := r.command(startup)
		if err != nil {
			return fmt.Errorf("TPM2_Startup: %w", err)
		}
		if rc := order.Uint32(resp[6:]); rc != 0 {
			return fmt.Errorf("TPM2_Startup: response code %#x", rc)
		}
	}
	if f.data == nil && r.data != nil { // it is QEMU's to give
		return r.data.Close()
	}
	return nil
}
