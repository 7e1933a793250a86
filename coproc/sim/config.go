// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/coproc/internal/slot"
)

// SlotName is the name of the card's one slot.
const SlotName = "default"

// EngineName is the file name of the worker program.
const EngineName = "hwvtpm-engine"

// Config describes a simulated card.
type Config struct {
	// Dir is the directory of the TPM's state. If it is missing or empty a
	// new TPM is made in it; its parent must exist. One process at a time
	// can hold it.
	Dir string

	// EnginePath is the worker program. Empty: see DefaultEnginePath.
	EnginePath string

	// Logger takes this driver's log and the worker's. Nil: none.
	Logger hclog.Logger

	// GenericCurves makes the worker do without OpenSSL's own code for the
	// NIST curves, which is checked against the generic code at first use
	// and about five times as fast.
	GenericCurves bool

	// Timeout bounds a command that brings none of its own. Zero: 90 s,
	// since making an RSA key may take many seconds on a busy host.
	Timeout time.Duration

	// CancelGrace is how long a canceled command may go on before the worker
	// is killed. Zero: 5 s.
	CancelGrace time.Duration

	// StartTimeout bounds the start of a worker, power-on, reset and close,
	// which wait for the disk. Zero: 30 s.
	StartTimeout time.Duration
}

func (c *Config) setDefaults() error {
	if c.Dir == "" {
		return errors.New("no state directory")
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	c.Dir = dir
	if c.EnginePath == "" {
		if c.EnginePath, err = DefaultEnginePath(); err != nil {
			return err
		}
	}
	// Absolute, since the worker runs in another directory; this also keeps
	// os/exec from looking in PATH.
	if c.EnginePath, err = filepath.Abs(c.EnginePath); err != nil {
		return fmt.Errorf("engine path: %w", err)
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	slot.DefaultTimes(&c.Timeout, &c.CancelGrace, &c.StartTimeout)
	return nil
}

// DefaultEnginePath finds the worker program: beside the running program,
// then in ../libexec/hwvtpm. PATH is not searched: the worker holds secrets,
// and must not be whatever a user put first.
func DefaultEnginePath() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find own path: %w", err)
	}
	dir := filepath.Dir(self)
	for _, p := range []string{
		filepath.Join(dir, EngineName),
		filepath.Join(dir, "..", "libexec", "hwvtpm", EngineName),
	} {
		if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() {
			return p, nil
		}
	}
	return "", fmt.Errorf("no %s beside %s or in ../libexec/hwvtpm", EngineName, self)
}
