// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"net"
	"sync"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/coproc/metrics"
	"hwvtpm/firmware/board"
	"hwvtpm/firmware/broker"
	"hwvtpm/firmware/card"
	"hwvtpm/internal/unixsock"
)

// faces are the card's ways to its clients.
type faces struct {
	broker  *broker.Server
	packets []*net.UnixListener // for the broker
	board   *board.Card
	pci     *net.UnixListener // nil: none
	metrics net.Listener      // nil: none
}

// openFaces makes all sockets, so that who is told that the daemon is ready finds
// them.
func openFaces(cfg config, c *card.Card, log hclog.Logger) (f *faces, err error) {
	f = &faces{}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	if err := f.listen(cfg); err != nil {
		return f, err
	}
	f.broker, err = broker.New(broker.Config{
		Open:   func(p card.Principal) broker.Session { return c.NewSession(p) },
		Policy: cfg.policy,
		Logger: log.Named("broker"),
	})
	if err != nil {
		return f, err
	}
	f.board = board.New(board.Config{
		Open: func() board.Session {
			return c.NewSession(card.Principal{Admin: true, Name: "host of the PCI function"})
		},
		Logger: log.Named("board"),
	})
	return f, nil
}

func (f *faces) listen(cfg config) error {
	l, err := passed()
	if err != nil {
		return err
	}
	if l != nil {
		f.packets = append(f.packets, l)
	}
	if cfg.socketPath != "" {
		if l, err = unixsock.Listen(unixsock.Packets, cfg.socketPath, cfg.socketMode); err != nil {
			return err
		}
		f.packets = append(f.packets, l)
	}
	if cfg.vfioUser != "" {
		if f.pci, err = unixsock.Listen(unixsock.Stream, cfg.vfioUser, 0o600); err != nil {
			return err
		}
	}
	if len(f.packets) == 0 && f.pci == nil {
		return errors.New("no socket was passed, and none is named by --socket or --vfio-user")
	}
	if cfg.metrics != "" {
		if f.metrics, err = metrics.Listen(cfg.metrics); err != nil {
			return err
		}
	}
	return nil
}

func (f *faces) close() {
	for _, l := range f.packets {
		l.Close()
	}
	if f.pci != nil {
		f.pci.Close()
	}
	if f.metrics != nil {
		f.metrics.Close()
	}
}

// serve serves clients until ctx ends or a face fails.
func (f *faces) serve(ctx context.Context, collect func(*metrics.Writer)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, f.close)()
	errs := make(chan error, len(f.packets)+2)
	var wg sync.WaitGroup
	start := func(serve func() error) {
		wg.Go(func() {
			errs <- serve()
			cancel() // none goes on alone
		})
	}
	for _, l := range f.packets {
		start(func() error { return f.broker.Serve(ctx, l) })
	}
	if f.pci != nil {
		start(func() error { return f.board.Serve(ctx, f.pci) })
	}
	if f.metrics != nil {
		start(func() error { return metrics.Serve(ctx, f.metrics, collect) })
	}
	wg.Wait()
	close(errs)
	var all []error
	for err := range errs {
		all = append(all, err)
	}
	return errors.Join(all...)
}
