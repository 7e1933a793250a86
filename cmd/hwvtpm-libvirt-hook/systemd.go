// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
)

// systemdUnit is a backend that systemd runs, which keeps its log too.
type systemdUnit struct{ config }

func (u systemdUnit) name() string { return "vhost-user-vtpm@" + u.slot + ".service" }

// start implements launcher. The unit says that it is ready (Type=notify).
func (u systemdUnit) start(ctx context.Context) error {
	env := fmt.Sprintf("VTPM_FACE=%s\n", u.faceFlags())
	if err := os.WriteFile(u.statePath("env"), []byte(env), 0o644); err != nil {
		return fmt.Errorf("setting the face: %w", err)
	}
	if err := systemctl(ctx, "start", u.name()); err != nil {
		return fmt.Errorf("%w; see journalctl -u %s", err, u.name())
	}
	return nil
}

// running implements launcher. A unit that is about to be started again, or gives a
// machine its TPM anew meanwhile, is not active, and runs.
func (u systemdUnit) running() (bool, error) {
	out, err := exec.Command("systemctl", "show", "--property=ActiveState", "--value", u.name()).Output()
	if err != nil {
		return false, fmt.Errorf("systemctl show %s: %w", u.name(), err)
	}
	state := string(bytes.TrimSpace(out))
	return state != "inactive" && state != "failed", nil
}

// stop implements launcher.
func (u systemdUnit) stop(ctx context.Context) error {
	if err := systemctl(ctx, "stop", u.name()); err != nil {
		return err
	}
	if err := os.Remove(u.statePath("env")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the face: %w", err)
	}
	return nil
}

func systemctl(ctx context.Context, verb, unit string) error {
	cmd := exec.CommandContext(ctx, "systemctl", verb, unit)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("systemctl %s %s: %w: %s", verb, unit, err, bytes.TrimSpace(out))
	}
	return nil
}
