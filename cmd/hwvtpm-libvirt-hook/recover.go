// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/digitalocean/go-qemu/qmp/raw"

	"hwvtpm/qmp"
)

// recoverTime bounds a recovery: a driver gives up on a dead device after some
// six seconds, and a guest that still boots does not answer at all.
const recoverTime = 90 * time.Second

// recover gives the machine of the slot its TPM anew.
func (c config) recover(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, recoverTime)
	defer cancel()
	control := c.path(controlName)
	client, err := qmp.Dial(ctx, control)
	if c.ifLost && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)) {
		return nil // no machine, or one without the virtio device
	}
	if err != nil {
		return fmt.Errorf("reaching the machine of slot %s: %w", c.slot, err)
	}
	defer client.Close()
	if c.ifLost {
		if lost, err := connectionLost(ctx, client); err != nil || !lost {
			return err
		}
	}
	if err := client.ReplaceVhostUser(ctx, c.device()); err != nil {
		return fmt.Errorf("plugging in the TPM of slot %s again: %w", c.slot, err)
	}
	return nil
}

// connectionLost says whether QEMU's end of the device's socket is dead, or gone
// as it is between unplugging and plugging.
func connectionLost(ctx context.Context, client *qmp.Client) (bool, error) {
	var all []raw.ChardevInfo
	if err := client.Execute(ctx, qmp.Command{Execute: "query-chardev"}, &all); err != nil {
		return false, fmt.Errorf("asking for the TPM's connection: %w", err)
	}
	i := slices.IndexFunc(all, func(info raw.ChardevInfo) bool { return info.Label == chardevID })
	return i < 0 || strings.HasPrefix(all[i].Filename, "disconnected:"), nil
}
