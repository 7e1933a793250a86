// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/control/ca"
)

// Config is what a Manager works with. What is not said to have a default is needed.
type Config struct {
	Name string // of the host, as the authority knows it
	Dir  string // state, 0700; it is made if it is not there

	TPM       TPM
	PCRs      PCRs
	Authority Authority
	// Card connects to the card. It is called again, after a pause, when the
	// connection is lost.
	Card func(context.Context) (Card, error)

	// Roots is what the chains of this host's certificates, and of machines'
	// attestation keys, lead to.
	Roots *x509.CertPool
	// Token gives a token for the first enrolment, or for one after a revocation;
	// empty: there is none. It is asked only then. Default: there is none.
	Token func() (string, error)

	// Certificates is a folder for the certificates of host, card and machines, as
	// PEM for other programs. Default: none.
	Certificates string
	// Slots is told the names of all slots, sorted, whenever they change. It is
	// called from one goroutine. Default: nobody is told.
	Slots func(names []string)

	// Poll is how often the card is asked for its slots. Default: 2 s.
	Poll time.Duration
	// PCRAge is how old a reading of the host's PCRs may be that machines are given
	// for mapping. Evidence always has a quote of its own. Default: 10 s.
	PCRAge time.Duration
	// Retry is the first pause after a failure; each next one is twice as long, up to
	// RetryMost. Defaults: 1 s, 5 min.
	Retry, RetryMost time.Duration
	// Burst and Every: a machine gets so many quotes of the host in a row, and then
	// one in each Every. Defaults: 5, 2 s.
	Burst int
	Every time.Duration

	Now    func() time.Time // default: time.Now
	Logger hclog.Logger     // default: none
}

func (c *Config) setDefaults() error {
	switch {
	case !ca.ValidName(c.Name):
		return fmt.Errorf("manager: %w: %.80q", ca.ErrName, c.Name)
	case c.Dir == "" || c.TPM == nil || c.PCRs == nil || c.Authority == nil || c.Card == nil || c.Roots == nil:
		return errors.New("manager: the configuration lacks a part")
	}
	for _, d := range []struct {
		value *time.Duration
		def   time.Duration
	}{
		{&c.Poll, 2 * time.Second}, {&c.PCRAge, 10 * time.Second}, {&c.Retry, time.Second},
		{&c.RetryMost, 5 * time.Minute}, {&c.Every, 2 * time.Second},
	} {
		if *d.value <= 0 {
			*d.value = d.def
		}
	}
	if c.Burst <= 0 {
		c.Burst = 5
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Token == nil {
		c.Token = func() (string, error) { return "", nil }
	}
	if c.Slots == nil {
		c.Slots = func([]string) {}
	}
	return nil
}
