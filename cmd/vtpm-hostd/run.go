// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"hwvtpm/control/client"
	"hwvtpm/coproc/admin"
	"hwvtpm/coproc/coprocd"
	"hwvtpm/internal/cli"
	"hwvtpm/vtpm/aik"
	"hwvtpm/vtpm/hostpcr"
	"hwvtpm/vtpm/manager"
)

// run serves until ctx ends.
func run(ctx context.Context, cfg config) (err error) {
	log := hclog.New(&hclog.LoggerOptions{
		Name: "vtpm-hostd", Level: hclog.LevelFromString(cfg.logLevel), Output: os.Stderr, JSONFormat: cfg.logFormat == "json",
	})
	if err := harden(); err != nil {
		return err
	}
	held, err := lock(cfg.dir)
	if err != nil {
		return cli.Lasting(err)
	}
	defer held.Close()
	h, err := openHost(&cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	d := &doors{log: log.Named("door")}
	m, err := h.manager(&cfg, d.machines, log)
	if err != nil {
		return err
	}
	defer d.close()
	if err := d.open(&cfg, m); err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { m.Run(ctx) })
	log.Info("ready", "version", cli.Version(), "host", cfg.name)
	report(ctx, m, log)
	return nil
}

// harden keeps the key of TLS, and what tokens and TPMs are told, out of core dumps
// and away from other processes of the same user.
func harden() error {
	err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	if err = errors.Join(err, unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)); err != nil {
		return fmt.Errorf("switching core dumps off: %w", err)
	}
	return nil
}

// report tells the service manager how things are, until ctx ends.
func report(ctx context.Context, m *manager.Manager, log hclog.Logger) {
	cli.Tell(log, "READY=1\nSTATUS="+m.Summary())
	every := time.NewTicker(10 * time.Second)
	defer every.Stop()
	for last := ""; ; {
		select {
		case <-ctx.Done():
			cli.Tell(log, "STOPPING=1")
			return
		case <-every.C:
		}
		if now := m.Summary(); now != last {
			last = now
			cli.Tell(log, "STATUS="+now)
		}
	}
}

// host is the host's TPM, open.
type host struct {
	tpm  interface{ Close() error }
	aik  *aik.Host
	pcrs *hostpcr.Host
}

func openHost(cfg *config, log hclog.Logger) (*host, error) {
	owner, err := secret(cfg.ownerAuth)
	if err != nil {
		return nil, fmt.Errorf("--owner-auth: %w", err)
	}
	endorsement, err := secret(cfg.endorsementAuth)
	if err != nil {
		return nil, fmt.Errorf("--endorsement-auth: %w", err)
	}
	tpm, err := aik.OpenTPM(cfg.tpm)
	if err != nil {
		return nil, err
	}
	h := &host{tpm: tpm}
	h.aik, err = aik.Open(tpm, cfg.dir, aik.Options{Key: cfg.keyType, OwnerAuth: owner, EndorsementAuth: endorsement})
	if err != nil {
		err = errors.Join(err, h.close())
		if errors.Is(err, aik.ErrOtherTPM) || errors.Is(err, aik.ErrDamaged) {
			return nil, cli.Lasting(err)
		}
		return nil, err
	}
	log.Info("the host's TPM is open", "tpm", cfg.tpm)
	pcrs := hostpcr.Config{AllowSHA1: cfg.allowSHA1, Share: true} // for mapping: machines that start together
	if cfg.eventLog != none {
		pcrs.Log = hostpcr.FileLog(cfg.eventLog)
	}
	if h.pcrs, err = h.aik.HostPCRs(pcrs); err != nil {
		return nil, errors.Join(err, h.close())
	}
	return h, nil
}

// close ends what is open, the last first.
func (h *host) close() (err error) {
	if h.pcrs != nil {
		err = h.pcrs.Close()
	}
	if h.aik != nil {
		err = errors.Join(err, h.aik.Close())
	}
	return errors.Join(err, h.tpm.Close())
}

func (h *host) manager(cfg *config, machines func([]string), log hclog.Logger) (*manager.Manager, error) {
	roots, err := client.ReadRoots(cfg.controlCA)
	if err != nil {
		return nil, fmt.Errorf("--control-ca: %w", err)
	}
	a, err := newAuthority(cfg.control, roots)
	if err != nil {
		return nil, err
	}
	return manager.New(manager.Config{
		Name: cfg.name, Dir: cfg.dir, TPM: h.aik, PCRs: h.pcrs, Authority: a, Roots: roots,
		Card:  func(ctx context.Context) (manager.Card, error) { return dialCard(ctx, cfg.coproc) },
		Token: cfg.token, Certificates: cfg.certificates, Slots: machines, Poll: cfg.poll, PCRAge: cfg.pcrAge,
		Logger: log.Named("manager"),
	})
}

// card is a connection to coprocd.
type card struct {
	*admin.Client
	conn *coprocd.Conn
}

func dialCard(ctx context.Context, socket string) (*card, error) {
	conn, err := coprocd.Dial(ctx, socket)
	if err != nil {
		return nil, err
	}
	return &card{admin.New(conn), conn}, nil
}

// Close implements manager.Card.
func (c *card) Close() error { return c.conn.Close() }
