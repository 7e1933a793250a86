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
	lost   chan struct{} // a data channel has ended
	ctrl   *arrivals     // nil: none
	data   *arrivals     // nil: none
}

// dataEnded is told of the end of each data channel.
func (f *front) dataEnded() {
	select {
	case f.lost <- struct{}{}:
	default: // that of the one before has not been looked at yet
	}
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

// serve serves until ctx ends, or the TPM is to end. Control connections come and
// go, and commands may come from elsewhere, while the TPM stays as it is: to the
// server all that is one session.
func (f *front) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ours, theirs, err := unixPair()
	if err != nil {
		return err
	}
	defer ours.Close()
	defer context.AfterFunc(ctx, func() { ours.Close(); f.close() })()
	over := make(chan error, 1)
	go func() { over <- f.server.ServeConn(ctx, theirs) }()
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
	go func() {
		r.answers() // until the session ends: its last answer still gets out
		cancel()
	}()
	if f.ctrl != nil {
		go f.each(ctx, cancel, f.ctrl, f.cfg.ctrlEnds, r.control)
	}
	if f.data != nil {
		go f.each(ctx, cancel, f.data, f.cfg.terminate, func(c net.Conn) { r.commands(c, f.cfg.server.disconnect) })
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.lost:
			if f.cfg.terminate {
				cancel()
			}
		}
	}
}

// each serves connections one after the other; with once, the end of the first
// one is that of the TPM.
func (f *front) each(ctx context.Context, cancel func(), a *arrivals, once bool, serve func(net.Conn)) {
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
		if once {
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
		err := r.data.Close()
		r.data = nil
		<-f.lost // which is no reason to end
		return err
	}
	return nil
}
