// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"errors"
	"flag"
	"fmt"
	"io"
)

// Config is what a worker is started with.
type Config struct {
	// StateDir is the slot's directory. If it is missing or empty a new TPM
	// is made in it. Its parent must exist.
	StateDir string

	// DataFD and ControlFD are SOCK_SEQPACKET sockets from the driver. Their
	// end of file is the orderly end of the worker.
	DataFD, ControlFD int

	// GenericCurves switches OpenSSL's own code for the NIST curves off: see
	// engine.Engine.FastCurves.
	GenericCurves bool

	// Log takes the log, one line a record: level, message, key=value.
	Log io.Writer
}

// File descriptors that a driver hands to its worker.
const (
	DefaultDataFD    = 3
	DefaultControlFD = 4
)

// ParseArgs makes a Config of a worker's command line, without the program
// name. Usage and errors of the flags go to w, which is also the log.
func ParseArgs(args []string, w io.Writer) (Config, error) {
	cfg := Config{DataFD: DefaultDataFD, ControlFD: DefaultControlFD, Log: w}
	fs := flag.NewFlagSet("hwvtpm-engine", flag.ContinueOnError)
	fs.SetOutput(w)
	fs.StringVar(&cfg.StateDir, "state", "", "state `directory` of the slot")
	fs.BoolVar(&cfg.GenericCurves, "generic-curves", false, "do without OpenSSL's own code for NIST curves")
	if err := fs.Parse(args); err != nil {
		return Config{}, err
	}
	if fs.NArg() != 0 {
		return Config{}, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	return cfg, cfg.Validate()
}

// Validate checks the fields that have no default.
func (c *Config) Validate() error {
	if c.StateDir == "" {
		return errors.New("no state directory: use --state")
	}
	if c.DataFD < 0 || c.ControlFD < 0 || c.Log == nil {
		return errors.New("data socket, control socket and log are needed")
	}
	return nil
}
