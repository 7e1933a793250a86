// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/coproc"
	"hwvtpm/coproc/accesskey"
	"hwvtpm/coproc/admin"
	"hwvtpm/coproc/coprocd"
	"hwvtpm/coproc/sim"
	"hwvtpm/vtpm/emulator"
	"hwvtpm/vtpm/hostdoor"
)

// cardTimeout bounds the opening of a slot.
const cardTimeout = 30 * time.Second

// tpm is a card with its slot that is the TPM.
type tpm struct {
	card coproc.Device
	name string
	slot coproc.Slot // nil: somebody else has it
	host *hostdoor.Host
}

// openTPM opens the TPM of dir, which is at p. With coproc.ErrInUse there is a
// card, without a slot: who has it now may be about to let go of it.
func openTPM(ctx context.Context, s settings, dir string, p place, log hclog.Logger) (*tpm, error) {
	ctx, cancel := context.WithTimeout(ctx, cardTimeout)
	defer cancel()
	card, name, err := openCard(ctx, s, dir, p, log)
	if err != nil {
		return nil, err
	}
	h := hostdoor.NewHost(s.host, s.hostd, log.Named("host"))
	slot, err := h.Open(ctx, card, name)
	if err != nil && !errors.Is(err, coproc.ErrInUse) {
		return nil, errors.Join(err, card.Close())
	}
	return &tpm{card: card, name: name, slot: slot, host: h}, err
}

// openFree opens the TPM of dir for no machine, and fails if somebody has it.
func openFree(ctx context.Context, s settings, dir string, p place, log hclog.Logger) (*tpm, error) {
	s.host = hostdoor.ModeOff
	t, err := openTPM(ctx, s, dir, p, log)
	if err != nil && t != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, err
}

// holder gives the slot as a machine needs it that may be saved, or migrated to
// a process that takes the slot over.
func (t *tpm) holder() *emulator.Holder {
	first := t.slot
	return emulator.NewHolder(func(ctx context.Context) (coproc.Slot, error) {
		if s := first; s != nil {
			first = nil
			return s, nil
		}
		return t.host.Open(ctx, t.card, t.name)
	})
}

// Close lets go of slot and card.
func (t *tpm) Close() error {
	if t.slot == nil {
		return t.card.Close()
	}
	return errors.Join(t.slot.Close(), t.card.Close())
}

func openCard(ctx context.Context, s settings, dir string, p place, log hclog.Logger) (coproc.Device, string, error) {
	if p.Slot == "" {
		card, err := sim.Open(sim.Config{Dir: filepath.Join(dir, cardDir), EnginePath: s.engine, Logger: log})
		return card, sim.SlotName, err
	}
	if s.socket == "" {
		return nil, "", fmt.Errorf("the TPM is slot %s of coprocd's card, and no coprocd is configured: see %s", p.Slot, defaultSettings)
	}
	if err := checkIdentity(ctx, s.socket, p); err != nil {
		return nil, "", err
	}
	card, err := coprocd.Open(coprocd.Config{
		Socket: s.socket,
		Key:    func(string) (ed25519.PrivateKey, error) { return accesskey.Load(filepath.Join(dir, keyFile)) },
		Logger: log,
	})
	return card, p.Slot, err
}

// checkIdentity sees that the slot is the one of before, and not another that
// got its name. The key would not fit either, but this says why.
func checkIdentity(ctx context.Context, socket string, p place) error {
	return withCard(ctx, socket, func(c *admin.Client) error {
		info, err := c.Show(ctx, p.Slot)
		if err != nil {
			return fmt.Errorf("slot %s: %w", p.Slot, err)
		}
		if got := hex.EncodeToString(info.ID[:]); got != p.ID {
			return fmt.Errorf("slot %s is another TPM (%s) than the one of this directory (%s)", p.Slot, got, p.ID)
		}
		return nil
	})
}

// withCard connects to coprocd for admin commands.
func withCard(ctx context.Context, socket string, do func(*admin.Client) error) error {
	conn, err := coprocd.Dial(ctx, socket)
	if err != nil {
		return err
	}
	return errors.Join(do(admin.New(conn)), conn.Close())
}
