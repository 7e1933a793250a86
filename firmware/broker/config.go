// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"errors"
	"time"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/firmware/card"
)

// Config describes a server to New.
type Config struct {
	// Open gives a session of the card to a client. Needed.
	Open func(card.Principal) Session

	// Policy tells who is an administrator.
	Policy Policy

	// MaxConns bounds the connections of users that are no administrators,
	// all together, and MaxConnsPerUser those of each user, administrators
	// too. A virtual machine's backend holds one. Zero: 2048 and 1024.
	MaxConns, MaxConnsPerUser int

	// FirstTimeout is how long a client may say nothing after it has
	// connected; later it may be idle as long as it likes. Zero: 10 s.
	FirstTimeout time.Duration

	// SendTimeout is how long a client may take to make room for an answer.
	// Zero: 5 s.
	SendTimeout time.Duration

	// Logger takes the log. Nil: none.
	Logger hclog.Logger
}

func (c *Config) setDefaults() error {
	if c.Open == nil {
		return errors.New("broker: no card")
	}
	for _, d := range []struct {
		v   *int
		def int
	}{{&c.MaxConns, 2048}, {&c.MaxConnsPerUser, 1024}} {
		if *d.v <= 0 {
			*d.v = d.def
		}
	}
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{{&c.FirstTimeout, 10 * time.Second}, {&c.SendTimeout, 5 * time.Second}} {
		if *d.v <= 0 {
			*d.v = d.def
		}
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	return nil
}
