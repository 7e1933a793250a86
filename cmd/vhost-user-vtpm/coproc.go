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
	"hwvtpm/coproc/pcie"
	"hwvtpm/coproc/sim"
	"hwvtpm/vtpm/emulator"
	"hwvtpm/vtpm/hostdoor"
)

// openTimeout bounds the start of the coprocessor.
const openTimeout = 30 * time.Second

// openSlot opens the coprocessor and the slot that the TPM lives in.
func openSlot(ctx context.Context, cfg config, h *hostdoor.Host, log hclog.Logger) (coproc.Device, coproc.Slot, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	card, name, err := openCard(cfg, log.Named("coproc"))
	if err != nil {
		return nil, nil, err
	}
	slot, err := h.Open(ctx, card, name)
	if cfg.emulator {
		slot, err = lend(h, card, name, slot, err)
	}
	if err != nil {
		return nil, nil, errors.Join(err, card.Close())
	}
	return card, slot, nil
}

// lend makes of a slot that was opened, or not, one that is only held while a
// machine needs it: another process may have it now, from which that machine is
// about to come.
func lend(h *hostdoor.Host, card coproc.Device, name string, slot coproc.Slot, err error) (coproc.Slot, error) {
	switch {
	case err == nil:
		err = slot.Close()
	case errors.Is(err, coproc.ErrInUse):
		err = nil
	}
	if err != nil {
		return nil, err
	}
	return emulator.NewHolder(func(ctx context.Context) (coproc.Slot, error) {
		ctx, cancel := context.WithTimeout(ctx, openTimeout)
		defer cancel()
		return h.Open(ctx, card, name)
	}), nil
}

// openCard gives the coprocessor and the name of the slot.
func openCard(cfg config, log hclog.Logger) (coproc.Device, string, error) {
	key := func(string) (ed25519.PrivateKey, error) { return accesskey.Load(cfg.slotKey) }
	switch {
	case cfg.cardSocket != "":
		card, err := coprocd.Open(coprocd.Config{Socket: cfg.cardSocket, Key: key, Logger: log})
		return card, cfg.slot, err
	case cfg.pciAddress != "":
		card, err := pcie.Open(pcie.Config{Open: pcie.VFIO(cfg.pciAddress), Key: key, Logger: log})
		return card, cfg.slot, err
	case cfg.vfioSocket != "":
		card, err := pcie.Open(pcie.Config{Open: pcie.VFIOUser(cfg.vfioSocket, 0), Key: key, Logger: log})
		return card, cfg.slot, err
	}
	card, err := sim.Open(sim.Config{
		Dir:           cfg.simDir,
		EnginePath:    cfg.engine,
		GenericCurves: !cfg.fastCurves,
		Logger:        log,
	})
	return card, sim.SlotName, err
}
