// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"hwvtpm/control/api"
	"hwvtpm/coproc/metrics"
	"hwvtpm/internal/cli"
	"hwvtpm/vtpm/door/doorhttp"
	"hwvtpm/vtpm/manager"
	"hwvtpm/vtpm/manager/gates"
)

// Bounds of connections at a time.
const (
	mostOfGuest    = 4 // of one machine: QEMU has one, and another while it migrates
	mostOfHost     = 64
	mostOfBackends = 1024 // all machines may be started at once
	mostOfBackend  = 8    // of one process, which has one question at a time
)

// doors are the ways to the manager.
type doors struct {
	log       hclog.Logger
	guests    *gates.Guests      // nil: none
	strangers *doorhttp.Listener // nil: none
	all       []io.Closer
	wg        sync.WaitGroup
}

// machines gives each machine its door. It is called from the manager's goroutine.
func (d *doors) machines(names []string) {
	if d.guests != nil {
		d.guests.Set(names)
	}
}

// open makes all sockets, so that who is told that the daemon is ready finds them.
func (d *doors) open(cfg *config, m *manager.Manager) error {
	var errs []error
	if cfg.socket != none {
		errs = append(errs, d.gate(gates.Config{
			Path: cfg.socket, Mode: 0o600, GID: -1, Handler: m.Operators(), Most: mostOfHost, Admit: operator, Logger: d.log,
		}))
	}
	if cfg.backendSocket != "" {
		errs = append(errs, d.gate(gates.Config{
			Path: cfg.backendSocket, Mode: 0o660, GID: cfg.backendGID, Handler: m.Backends(), Most: mostOfBackends, Each: mostOfBackend, Logger: d.log,
		}))
	}
	guest := gates.Config{
		Mode: 0o660, GID: cfg.guestGID, Handler: m.Guests(manager.GuestSocket), Most: mostOfGuest, Slow: true, Logger: d.log,
	}
	if cfg.guestDir != "" {
		var err error
		if d.guests, err = gates.NewGuests(cfg.guestDir, guest); err == nil {
			d.all = append(d.all, d.guests)
		}
		errs = append(errs, err)
	}
	if cfg.vsock != 0 {
		guest.Handler = m.Guests(manager.GuestVsock)
		v, err := gates.OpenVsock(cfg.vsock, cfg.vsockGuests, guest)
		if err == nil {
			d.all = append(d.all, v)
		}
		errs = append(errs, err)
	}
	if cfg.listen != "" {
		errs = append(errs, d.https(cfg, m))
	}
	if cfg.metrics != "" {
		errs = append(errs, d.metrics(cfg.metrics, m))
	}
	return errors.Join(errs...)
}

func (d *doors) gate(cfg gates.Config) error {
	g, err := gates.Open(cfg)
	if err == nil {
		d.all = append(d.all, g)
	}
	return err
}

// operator admits root and the user of this process.
func operator(peer *unix.Ucred) error {
	if peer.Uid != 0 && int(peer.Uid) != os.Geteuid() {
		return fmt.Errorf("user %d is no operator", peer.Uid)
	}
	return nil
}

// https serves guests that have no channel of their own.
func (d *doors) https(cfg *config, m *manager.Manager) error {
	secure := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2", "http/1.1"},
		// Read each time, so that it can be renewed.
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return pair(cfg.tlsCert, cfg.tlsKey) },
	}
	if _, err := pair(cfg.tlsCert, cfg.tlsKey); err != nil {
		return err
	}
	l, err := net.Listen("tcp", cfg.listen)
	if err != nil {
		return err
	}
	d.log.Info("guests by HTTPS", "address", l.Addr().String())
	d.strangers = doorhttp.Bound(l)
	d.serve("guests by HTTPS", func(ctx context.Context) error {
		return api.Serve(ctx, d.strangers, secure, doorhttp.Handler(m.Guests(manager.GuestHTTPS), nil))
	})
	return nil
}

// metrics shows a Prometheus server what was counted.
func (d *doors) metrics(address string, m *manager.Manager) error {
	l, err := metrics.Listen(address)
	if err != nil {
		return err
	}
	d.serve("metrics", func(ctx context.Context) error {
		return metrics.Serve(ctx, l, func(w *metrics.Writer) {
			w.Gauge("hostd_build_info", "Version of the program, always 1.").
				Count(1, metrics.Label{Name: "version", Value: cli.Version()})
			if d.strangers != nil {
				w.Counter("hostd_connections_refused_total", "Connections by HTTPS beyond what one address may have.").Count(d.strangers.Refused())
			}
			m.WriteMetrics(w)
		})
	})
	return nil
}

// serve runs a server until the doors are closed.
func (d *doors) serve(what string, f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	d.all = append(d.all, closer(cancel))
	d.wg.Go(func() {
		if err := f(ctx); err != nil {
			d.log.Error("a server has ended", "of", what, "error", err)
		}
	})
}

type closer context.CancelFunc

// Close implements io.Closer.
func (c closer) Close() error {
	c()
	return nil
}

// pair reads a certificate and its key.
func pair(cert, key string) (*tls.Certificate, error) {
	private, err := secret(key)
	if err != nil {
		return nil, fmt.Errorf("--tls-key: %w", err)
	}
	defer clear(private)
	public, err := os.ReadFile(cert)
	if err != nil {
		return nil, fmt.Errorf("--tls-cert: %w", err)
	}
	c, err := tls.X509KeyPair(public, private)
	if err != nil {
		return nil, fmt.Errorf("--tls-cert, --tls-key: %w", err)
	}
	return &c, nil
}

// close closes all doors, and waits for what is under way.
func (d *doors) close() {
	for _, c := range d.all {
		if err := c.Close(); err != nil {
			d.log.Warn("a door does not close", "error", err)
		}
	}
	d.wg.Wait()
}
