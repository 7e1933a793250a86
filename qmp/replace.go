// SPDX-License-Identifier: Apache-2.0

package qmp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"
)

// chardevRetry is the pause between attempts to remove a character device that
// is still in use.
const chardevRetry = 20 * time.Millisecond

// VhostUserSpec says which vhost-user device to replace, and by what.
type VhostUserSpec struct {
	DeviceID  string // id of the device, the same before and after
	ChardevID string // id of its character device, the same before and after
	Socket    string // UNIX socket on which the new back-end listens already

	// Device holds the properties for device_add: "driver", "bus", "virtio-id"
	// and so on. "id" and "chardev" are set from the fields above.
	Device map[string]any
}

func (s VhostUserSpec) validate() error {
	if s.DeviceID == "" || s.ChardevID == "" || s.Socket == "" {
		return errors.New("device id, chardev id and socket are required")
	}
	if driver, ok := s.Device["driver"].(string); !ok || driver == "" {
		return errors.New("device properties lack a driver")
	}
	return nil
}

// ReplaceVhostUser gives a running VM a new vhost-user back-end in place of one
// that died or is to be moved. The guest sees the device go and come back.
//
// QEMU's generic vhost-user device cannot reconnect, and once its back-end has
// died the next reset of the VM or rebind of the driver aborts QEMU. So the
// device must be replaced, soon, in this order:
//
//  1. device_del. First, because nothing below it can be taken from under a
//     plugged device. Repeated until the guest answers, see Unplug. Losing the
//     back-end does not hinder it, provided that a guest driver was bound.
//  2. Wait for the DEVICE_DELETED of the device itself, the second one.
//  3. chardev-remove. The character device is the dead connection; its id is
//     wanted again. QEMU lets go of it a moment after the event, so a refusal is
//     tried again while the character device exists.
//  4. chardev-add, which connects to the new back-end. If none listens QEMU
//     refuses cleanly, and the VM goes on without the device.
//  5. device_add. QEMU talks to the back-end before it replies, so the back-end
//     must be served by another goroutine or process than the caller's.
//
// Each step accepts that it has been done already: after an error ReplaceVhostUser
// may simply be called again. ctx should carry a deadline, since a guest that
// never answers would be asked for ever. A device whose driver was never bound
// since the VM started cannot be saved: QEMU aborts on its own.
func (c *Client) ReplaceVhostUser(ctx context.Context, spec VhostUserSpec) error {
	if err := spec.validate(); err != nil {
		return fmt.Errorf("qmp: replace vhost-user device: %w", err)
	}
	args := maps.Clone(spec.Device)
	args["id"], args["chardev"] = spec.DeviceID, spec.ChardevID

	err := c.Unplug(ctx, spec.DeviceID)
	if err == nil {
		err = c.removeReleasedChardev(ctx, spec.ChardevID)
	}
	if err == nil {
		err = c.ChardevAdd(ctx, spec.ChardevID, spec.Socket)
	}
	if err == nil {
		err = c.DeviceAdd(ctx, args)
	}
	if err != nil {
		return fmt.Errorf("qmp: replace vhost-user device %s: %w", spec.DeviceID, err)
	}
	return nil
}

// removeReleasedChardev removes a character device that its device is about to
// let go of. It is content if there is none.
func (c *Client) removeReleasedChardev(ctx context.Context, id string) error {
	for {
		exists, err := c.chardevExists(ctx, id)
		if err != nil || !exists {
			return err
		}
		err = c.ChardevRemove(ctx, id)
		if !isClass(err, ClassGenericError) {
			return err
		}
		select {
		case <-time.After(chardevRetry):
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}
