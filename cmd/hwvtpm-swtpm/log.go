// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/hashicorp/go-hclog"
)

// logConfig says where the log goes.
type logConfig struct {
	file     string // a path, "-" for nowhere, or empty for fd
	fd       int
	level    hclog.Level
	prefix   string
	truncate bool
}

func stderrLog() logConfig { return logConfig{fd: 2, level: hclog.Info} }

// set reads swtpm's --log.
func (c *logConfig) set(v string) error {
	p, err := parseParameters(v, "file", "fd", "level", "prefix", "truncate")
	if err != nil {
		return err
	}
	level, levelErr := p.number("level", 1)
	fd, fdErr := p.number("fd", 2)
	if err := errors.Join(levelErr, fdErr); err != nil {
		return err
	}
	*c = logConfig{file: p["file"], fd: fd, level: hclog.Info, prefix: p["prefix"], truncate: p.has("truncate")}
	switch {
	case level == 0:
		c.level = hclog.Error
	case level >= 5:
		c.level = hclog.Debug
	}
	return nil
}

// open opens the log, which is never closed.
func (c *logConfig) open(name string) (hclog.Logger, error) {
	var w io.Writer
	switch c.file {
	case "-":
		return hclog.NewNullLogger(), nil
	case "":
		if w = os.Stderr; c.fd != 2 { // a second file would close it when it is collected
			w = os.NewFile(uintptr(c.fd), "log")
		}
	default:
		mode := os.O_WRONLY | os.O_CREATE | os.O_APPEND
		if c.truncate {
			mode |= os.O_TRUNC
		}
		f, err := os.OpenFile(c.file, mode, 0o600)
		if err != nil {
			return nil, fmt.Errorf("log: %w", err)
		}
		w = f
	}
	if w == io.Writer(nil) {
		return nil, fmt.Errorf("log: descriptor %d", c.fd)
	}
	return hclog.New(&hclog.LoggerOptions{Name: c.prefix + name, Level: c.level, Output: w}), nil
}
