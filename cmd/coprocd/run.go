// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/firmware/card"
	"hwvtpm/internal/cli"
)

func newLogger(cfg config) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Name:       "coprocd",
		Level:      hclog.LevelFromString(cfg.logLevel),
		Output:     os.Stderr,
		JSONFormat: cfg.logFormat == "json",
	})
}

// run serves until ctx ends and then shuts down in order: no client is served any
// more, the slots end, the anchor against rollback is written.
func run(ctx context.Context, cfg config) (err error) {
	log := newLogger(cfg)
	if err := harden(log); err != nil {
		return err
	}
	protection, tpm, err := openProtection(&cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tpm.Close()) }()
	log.Info("opening the card", "store", cfg.storeDir, "storage-key", cfg.keyName(), "protection", protection.String())
	c, err := openCard(&cfg, protection, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	f, err := openFaces(cfg, c, log)
	if err != nil {
		return err
	}
	cli.Tell(log, "READY=1\nSTATUS=serving")
	log.Info("ready", "version", cli.Version())
	defer cli.Tell(log, "STOPPING=1")
	return f.serve(ctx, figures{c, f.broker, protection.String()}.collect)
}

// openCard opens the card that the store holds, or makes one.
func openCard(cfg *config, p card.Protection, log hclog.Logger) (*card.Card, error) {
	open := card.Open
	if cfg.adopt != "" {
		open = func(c card.Config) (*card.Card, error) { return card.Adopt(c, cfg.adopt) }
	}
	c, err := open(card.Config{
		Dir:            cfg.storeDir,
		Engine:         cfg.engine,
		Protection:     p,
		MaxLive:        cfg.maxLive,
		Spares:         orNone(cfg.spares),
		ParkAfter:      orNone(cfg.parkAfter),
		WorkerUID:      cfg.workerUID,
		GenericCurves:  !cfg.fastCurves,
		AnchorInterval: cfg.anchor,
		Logger:         log.Named("card"),
	})
	if err != nil {
		return nil, cli.Lasting(fmt.Errorf("store %s: %w", cfg.storeDir, err))
	}
	return c, nil
}

// orNone gives what the card takes for none, where zero is its default.
func orNone[T int | time.Duration](v T) T {
	if v == 0 {
		return -1
	}
	return v
}
