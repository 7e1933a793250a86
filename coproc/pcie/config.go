// SPDX-License-Identifier: Apache-2.0

package pcie

import (
	"crypto/ed25519"
	"errors"
	"time"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/coproc/internal/slot"
)

// Config describes a card to Open.
type Config struct {
	// Open opens the card's function, at first and after it was lost.
	Open Opener

	// Key gives the access key of a slot, by the slot's name. It is asked for
	// each time that the slot is opened, also after something was lost, and
	// what it gave is wiped then. Needed to open slots.
	Key func(name string) (ed25519.PrivateKey, error)

	// Logger takes the driver's log. Nil: none.
	Logger hclog.Logger

	// Timeout bounds a command that brings none of its own. Zero: 90 s,
	// since making an RSA key may take many seconds.
	Timeout time.Duration

	// CancelGrace is how long a canceled command may go on before its worker
	// is ended. Zero: 5 s.
	CancelGrace time.Duration

	// AdminTimeout bounds everything that is not a command: a card may have
	// to start an engine or wait for a disk. What makes keys, as the creation
	// of a slot does, has Timeout beside. Zero: 30 s.
	AdminTimeout time.Duration
}

func (c *Config) setDefaults() error {
	if c.Open == nil {
		return errors.New("no transport")
	}
	if c.Key == nil {
		c.Key = func(string) (ed25519.PrivateKey, error) { return nil, errors.New("no access key") }
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	slot.DefaultTimes(&c.Timeout, &c.CancelGrace, &c.AdminTimeout)
	return nil
}
