// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"time"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/coproc"
	"hwvtpm/coproc/accesskey"
	"hwvtpm/coproc/coprocd"
	"hwvtpm/coproc/sim"
)

// openTimeout bounds the start of the coprocessor.
const openTimeout = 30 * time.Second

// openSlot opens the coprocessor and the slot that the TPM lives in.
func openSlot(ctx context.Context, cfg config, log hclog.Logger) (coproc.Device, coproc.Slot, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	card, name, err := openCard(cfg, log.Named("coproc"))
	if err != nil {
		return nil, nil, err
	}
	slot, err := card.OpenSlot(ctx, name)
	if err != nil {
		return nil, nil, errors.Join(err, card.Close())
	}
	return card, slot, nil
}

// openCard gives the coprocessor and the name of the slot.
func openCard(cfg config, log hclog.Logger) (coproc.Device, string, error) {
	if cfg.cardSocket == "" {
		card, err := sim.Open(sim.Config{
			Dir:           cfg.simDir,
			EnginePath:    cfg.engine,
			GenericCurves: !cfg.fastCurves,
			Logger:        log,
		})
		return card, sim.SlotName, err
	}
	card, err := coprocd.Open(coprocd.Config{
		Socket: cfg.cardSocket,
		Key:    func(string) (ed25519.PrivateKey, error) { return accesskey.Load(cfg.slotKey) },
		Logger: log,
	})
	return card, cfg.slot, err
}
