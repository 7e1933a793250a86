// SPDX-License-Identifier: Apache-2.0

package coprocd

import (
	"crypto/ed25519"
	"errors"
	"time"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/coproc/internal/slot"
)

// Config describes a daemon to Open.
type Config struct {
	// Socket is the path of the daemon's socket.
	Socket string

	// Key gives the access key of a slot. It is asked for each time that the
	// slot is opened, also after the daemon or a worker died, and the key is
	// not kept in between.
	Key func(slot string) (ed25519.PrivateKey, error)

	// Logger takes the driver's log. Nil: none.
	Logger hclog.Logger

	// Timeout bounds a command that brings none of its own. Zero: 90 s,
	// since making an RSA key may take many seconds on a busy host.
	Timeout time.Duration

	// CancelGrace is how long a canceled command may go on before its worker
	// is given up. Zero: 5 s.
	CancelGrace time.Duration

	// AdminTimeout bounds each thing that is not a command: opening a slot,
	// power-on, reset and close, which may wait for a disk. Zero: 30 s.
	AdminTimeout time.Duration

	// Patience is how long a guest waits at most for a daemon that is away
	// or a slot that cannot be opened again yet. Zero: 15 s, in which a
	// daemon restarts.
	Patience time.Duration
}

func (c *Config) setDefaults() error {
	if c.Socket == "" {
		return errors.New("no socket")
	}
	if c.Key == nil {
		return errors.New("no access key")
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	slot.DefaultTimes(&c.Timeout, &c.CancelGrace, &c.AdminTimeout)
	c.Patience = slot.OrDefault(c.Patience, 15*time.Second)
	return nil
}
