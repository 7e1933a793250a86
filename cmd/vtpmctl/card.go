// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"time"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/admin"
)

// cardJSON is the card for programs. Members are only added, never renamed.
type cardJSON struct {
	Serial             string        `json:"serial"`
	Firmware           string        `json:"firmware,omitempty"` // version
	EngineVersion      string        `json:"engine,omitempty"`   // version
	Measurement        string        `json:"firmware-measurement"`
	MaxSlots           uint32        `json:"max-slots,omitempty"`
	Slots              uint32        `json:"slots"`
	Live               uint32        `json:"live"`
	Parked             uint32        `json:"parked"`
	Locked             uint32        `json:"locked"`
	Faulted            uint32        `json:"faulted"`
	Spares             uint32        `json:"spares"`
	KeyProtection      string        `json:"key-protection"`
	RollbackProtection string        `json:"rollback-protection"`
	Epoch              uint64        `json:"epoch"`
	AnchorCounter      uint64        `json:"anchor-counter"`
	AnchorDigest       string        `json:"anchor-digest"`
	Uptime             uint64        `json:"uptime"` // seconds
	Counters           *countersJSON `json:"counters,omitempty"`
}

type countersJSON struct {
	Creates    uint64 `json:"creates"`
	Destroys   uint64 `json:"destroys"`
	Clones     uint64 `json:"clones"`
	Adopts     uint64 `json:"adopts"`
	Opens      uint64 `json:"opens"`
	Denied     uint64 `json:"denied"`
	Parks      uint64 `json:"parks"`
	Unparks    uint64 `json:"unparks"`
	Restarts   uint64 `json:"restarts"`
	Commands   uint64 `json:"commands"`
	Saves      uint64 `json:"saves"`
	SaveErrors uint64 `json:"save-errors"`
}

func healthOf(h abi.CardHealth) cardJSON {
	return cardJSON{
		EngineVersion: versionText(h.EngineVersion), Measurement: hex.EncodeToString(h.Firmware[:]),
		Slots: h.Slots, Live: h.Live, Parked: h.Parked, Locked: h.Locked, Faulted: h.Faulted, Spares: h.Spares,
		KeyProtection: protection(h.KeyProtection), RollbackProtection: protection(h.RollbackProtection),
		Epoch: h.Epoch, AnchorCounter: h.AnchorCounter, AnchorDigest: hex.EncodeToString(h.AnchorDigest[:]),
		Uptime: h.Uptime,
	}
}

func protection(p uint32) string {
	if p == abi.ProtectionTPM {
		return "host-tpm"
	}
	return "none"
}

// protectionText says what a protection is worth.
func protectionText(kind, none string) string {
	if kind == "none" {
		return "NONE: " + none
	}
	return "the host's TPM"
}

// versionText writes a version 0x00MMmmpp; zero is one that is not known.
func versionText(v uint32) string {
	if v == 0 {
		return ""
	}
	return fmt.Sprintf("%d.%d.%d", v>>16&0xff, v>>8&0xff, v&0xff)
}

func (inv *invocation) card(ctx context.Context) error {
	return inv.withClient(ctx, func(ctx context.Context, c *admin.Client) error {
		id, err := c.Identify(ctx)
		if err != nil {
			return err
		}
		health, err := c.Health(ctx)
		if err != nil {
			return err
		}
		n, err := c.Counters(ctx)
		if err != nil {
			return err
		}
		card := healthOf(health)
		card.Serial, card.Firmware, card.MaxSlots = hex.EncodeToString(id.Serial[:]), versionText(id.Firmware), id.Slots
		counters := countersJSON(n)
		card.Counters = &counters
		return inv.printCard(card, nil)
	})
}

func (inv *invocation) printCard(c cardJSON, more [][2]string) error {
	rows := [][2]string{{"serial", c.Serial}}
	if c.Firmware != "" {
		rows = append(rows, [2]string{"firmware", c.Firmware})
	}
	slots := fmt.Sprint(c.Slots)
	if c.MaxSlots != 0 {
		slots += fmt.Sprintf(" of %d", c.MaxSlots)
	}
	if c.EngineVersion != "" {
		rows = append(rows, [2]string{"engine", c.EngineVersion})
	}
	rows = append(rows, [][2]string{
		{"firmware measurement", c.Measurement},
		{"up", (time.Duration(c.Uptime) * time.Second).String()},
		{"slots", fmt.Sprintf("%s: %d live, %d parked, %d locked, %d faulted", slots, c.Live, c.Parked, c.Locked, c.Faulted)},
		{"spare workers", fmt.Sprint(c.Spares)},
		{"storage key", protectionText(c.KeyProtection, "a file, for whoever can read the store")},
		{"rollback", protectionText(c.RollbackProtection, "whoever can write the store can bring old state back")},
		{"epoch", fmt.Sprint(c.Epoch)}, {"anchor counter", fmt.Sprint(c.AnchorCounter)}, {"anchor digest", c.AnchorDigest},
	}...)
	if n := c.Counters; n != nil {
		rows = append(rows, [][2]string{
			{"opened, denied", fmt.Sprintf("%d, %d", n.Opens, n.Denied)},
			{"made, cloned, destroyed", fmt.Sprintf("%d, %d, %d", n.Creates, n.Clones, n.Destroys)},
			{"adopted", fmt.Sprint(n.Adopts)},
			{"parked, woken", fmt.Sprintf("%d, %d", n.Parks, n.Unparks)},
			{"worker restarts", fmt.Sprint(n.Restarts)},
			{"commands", fmt.Sprint(n.Commands)},
			{"saved, failed", fmt.Sprintf("%d, %d", n.Saves, n.SaveErrors)},
		}...)
	}
	if inv.json {
		return inv.printJSON(c)
	}
	return inv.printRows(append(rows, more...))
}
