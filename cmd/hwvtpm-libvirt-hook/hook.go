// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// launcher runs the backend of a slot.
type launcher interface {
	// start returns when the backend can be connected to.
	start(ctx context.Context) error
	// running says whether there is a backend.
	running() (bool, error)
	// stop ends the backend, if there is one, and returns when it has ended.
	stop(ctx context.Context) error
}

func (c config) launcher() launcher {
	if _, err := os.Stat("/run/systemd/system"); err == nil && c.systemd == "auto" {
		return systemdUnit{c}
	}
	return daemon{c}
}

// hook does what an event asks for. Nothing is printed to stdout: libvirt would
// take it for the XML of a domain that is being restored or migrated.
func (c config) hook(ctx context.Context, in io.Reader) error {
	act := config.begin
	switch c.event.operation + " " + c.event.sub {
	case "prepare begin":
	case "release end":
		act = config.end
	default:
		return nil
	}
	req, err := readRequest(in)
	if err != nil || req == nil {
		return err
	}
	c.slot, c.face = req.slot, req.face
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return act(c, ctx, *req)
}

// begin starts the backend for the domain. An older one of the same domain, which
// nobody stopped, is replaced.
func (c config) begin(ctx context.Context, req request) error {
	l := c.launcher()
	running, err := l.running()
	if err != nil {
		return err
	}
	owner, err := c.owner()
	if err != nil {
		return err
	}
	if running && owner != "" && owner != req.uuid {
		return fmt.Errorf("slot %s is in use by the domain %s: a slot is one machine's TPM", req.slot, owner)
	}
	if running && owner == "" {
		return fmt.Errorf("slot %s has a backend that was not started for a libvirt domain: stop it first", req.slot)
	}
	if _, err := os.Stat(c.keyFile()); err != nil {
		return fmt.Errorf("the access key of slot %s (was it made with vtpmctl slot create?): %w", req.slot, err)
	}
	if err := l.stop(ctx); err != nil {
		return err
	}
	if err := os.WriteFile(c.statePath("domain"), []byte(req.uuid+"\n"), 0o644); err != nil {
		return fmt.Errorf("noting the domain of slot %s: %w", req.slot, err)
	}
	if err := l.start(ctx); err != nil {
		return fmt.Errorf("starting the TPM in slot %s: %w", req.slot, err)
	}
	return nil
}

// end stops the backend, if it is this domain's: a domain that was refused the
// slot of another is released too.
func (c config) end(ctx context.Context, req request) error {
	owner, err := c.owner()
	if err != nil || owner != req.uuid {
		return err
	}
	if err := c.launcher().stop(ctx); err != nil {
		return fmt.Errorf("stopping the TPM in slot %s: %w", req.slot, err)
	}
	return errors.Join(os.Remove(c.statePath("domain")), os.RemoveAll(c.path("")))
}

// statePath is a file about the slot that belongs to this program alone.
func (c config) statePath(kind string) string {
	return filepath.Join(c.runDir, "hook", c.slot+"."+kind)
}

func (c config) keyFile() string { return filepath.Join(c.keyDir, c.slot+".key") }

// owner is the UUID of the domain for which the backend was started, or empty.
func (c config) owner() (string, error) {
	text, err := os.ReadFile(c.statePath("domain"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("the domain of slot %s: %w", c.slot, err)
	}
	return strings.TrimSpace(string(text)), nil
}

// lock keeps other events of the slot away: libvirt runs hooks of several domains
// at once. The lock ends with the process too.
func (c config) lock() (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Join(c.runDir, "hook"), 0o755); err != nil {
		return nil, fmt.Errorf("making the folder of the hook: %w", err)
	}
	f, err := os.OpenFile(c.statePath("lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking slot %s: %w", c.slot, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("locking slot %s: %w", c.slot, err), f.Close())
	}
	return func() { f.Close() }, nil
}
