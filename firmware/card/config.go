// SPDX-License-Identifier: Apache-2.0

package card

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/firmware/card/store"
)

// Config describes a card.
type Config struct {
	// Dir is the store's directory. If it is missing or empty a new card is
	// made in it; its parent must exist. One process at a time can hold it.
	Dir string

	// Engine is the program that workers run.
	Engine string

	// Protection keeps the storage key and the counter. Nil: files.
	Protection Protection

	// MaxLive is how many workers there may be at most, without spares. Beyond
	// that the slot that was used least recently is parked; if all are busy, one
	// that has had a second. Who waits is served in order, and refused with
	// abi.StatusFull after 20 seconds; the client of a parked slot is told after
	// a minute, by the end of its slot. Zero: 64.
	MaxLive int

	// Spares is how many workers wait for a slot, so that none has to be
	// started when a slot is opened or brought back. Zero: 2. Negative: none.
	Spares int

	// ParkAfter is how long a slot may be idle before it is parked. Zero: one
	// minute. Negative: it stays.
	ParkAfter time.Duration

	// WorkerUID is the first of UIDs user and group ids that nothing else
	// uses: each worker has one that no other living worker has. Zero or
	// negative: the card's own, which does not keep one worker from another.
	// It takes root.
	WorkerUID int

	// GenericCurves makes workers do without OpenSSL's own code for the NIST
	// curves.
	GenericCurves bool

	// Logger takes the log. Nil: none.
	Logger hclog.Logger

	// AnchorInterval is how often the anchor advances at most: what was saved
	// since can be set back. Zero: sealed.DefaultInterval.
	AnchorInterval time.Duration

	// MaxSlots is how many slots there may be. Zero: 1024; the most is
	// store.MaxSlots.
	MaxSlots int
}

// Protection says how a card keeps its storage key and its counter.
type Protection = store.Protection

// HostTPM configures TPMProtection.
type HostTPM = store.HostTPM

// FileProtection keeps key and counter in files: see store.FileProtection.
func FileProtection(keyPath string) Protection { return store.FileProtection(keyPath) }

// TPMProtection keeps key and counter by the host's TPM: see store.TPMProtection.
func TPMProtection(cfg HostTPM) Protection { return store.TPMProtection(cfg) }

// moreUIDs are for workers that make TPMs, or that are about to end.
const moreUIDs = 64

// UIDs is how many user ids from WorkerUID on are used.
func (c *Config) UIDs() int { return c.MaxSlots + c.Spares + moreUIDs }

func (c *Config) setDefaults() error {
	if c.Dir == "" || c.Engine == "" {
		return errors.New("card: store directory and engine are needed")
	}
	var err error
	if c.Dir, err = filepath.Abs(c.Dir); err != nil {
		return fmt.Errorf("card: store directory: %w", err)
	}
	// Absolute: workers run in another directory, and PATH is not searched.
	if c.Engine, err = filepath.Abs(c.Engine); err != nil {
		return fmt.Errorf("card: engine: %w", err)
	}
	if c.Protection == nil {
		c.Protection = FileProtection("")
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	c.MaxLive = orDefault(c.MaxLive, 64)
	c.MaxSlots = min(orDefault(c.MaxSlots, 1024), store.MaxSlots)
	c.ParkAfter = orDefault(c.ParkAfter, time.Minute)
	if c.Spares = orDefault(c.Spares, 2); c.Spares < 0 {
		c.Spares = 0
	}
	if c.MaxLive < 0 {
		return fmt.Errorf("card: at most %d workers", c.MaxLive)
	}
	if c.WorkerUID <= 0 {
		c.WorkerUID = -1
	} else if os.Geteuid() != 0 {
		return errors.New("card: workers can have their own user ids only if the card is root")
	}
	return nil
}

func orDefault[T int | time.Duration](v, def T) T {
	if v == 0 {
		return def
	}
	return v
}
