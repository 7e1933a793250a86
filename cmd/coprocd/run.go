// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"hwvtpm/firmware/board"
)

// config is what the program was told.
type config struct {
	socket   string // path of the vfio-user socket, replaced if it is one
	stateDir string
	engine   string
	log      io.Writer
}

func parseArgs(args []string, w io.Writer) (config, error) {
	cfg := config{log: w}
	fs := flag.NewFlagSet("coprocd", flag.ContinueOnError)
	fs.SetOutput(w)
	fs.StringVar(&cfg.socket, "vfio-user", "", "`socket` to serve vfio-user on")
	fs.StringVar(&cfg.stateDir, "state", "", "state `directory` of the slot")
	fs.StringVar(&cfg.engine, "engine", "", "`path` of hwvtpm-engine (default: beside this program)")
	if err := fs.Parse(args); err != nil {
		return config{}, err
	}
	if fs.NArg() != 0 {
		return config{}, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if cfg.socket == "" || cfg.stateDir == "" {
		return config{}, errors.New("--vfio-user and --state are needed")
	}
	err := cfg.resolve()
	return cfg, err
}

// resolve makes paths absolute: engines run in another directory.
func (c *config) resolve() error {
	if c.engine == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find own path: %w", err)
		}
		c.engine = filepath.Join(filepath.Dir(self), "hwvtpm-engine")
	}
	for _, p := range []*string{&c.stateDir, &c.engine} {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}
		*p = abs
	}
	return nil
}

// run serves clients until ctx ends.
func run(ctx context.Context, cfg config) error {
	l, err := listen(cfg.socket)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { l.Close() })()
	defer l.Close()
	log := hclog.New(&hclog.LoggerOptions{Name: "coprocd", Output: cfg.log})
	engine := board.Engine{Path: cfg.engine, StateDir: cfg.stateDir, Log: cfg.log}
	return board.New(board.Config{Start: engine.Start, Logger: log}).Serve(ctx, l)
}

// listen makes the socket, for its owner alone. One that a dead process left
// behind is replaced; one that somebody serves is not.
func listen(path string) (*net.UnixListener, error) {
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("%s is served by another process", path)
	}
	if st, err := os.Lstat(path); err == nil && st.Mode()&os.ModeSocket != 0 {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	old := unix.Umask(0o177)
	defer unix.Umask(old)
	return net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
}
