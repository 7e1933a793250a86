// SPDX-License-Identifier: Apache-2.0

package qmp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/digitalocean/go-qemu/qmp/raw"
)

// unplugRetry is how long Unplug waits for the guest before it asks again. A
// guest that listens answers within some ten milliseconds, or within about six
// seconds if a driver has to give up on a dead device first or PCIe's button
// delay applies. Asking again meanwhile is not harmless: with ACPI each request
// is queued in the guest, and one that is served late can eject the device that
// was plugged in the first one's place.
const unplugRetry = 15 * time.Second

// DeviceAdd plugs a device. args are the properties of -device, with "driver"
// and, for anything that is to be unplugged again, "id".
func (c *Client) DeviceAdd(ctx context.Context, args map[string]any) error {
	return c.Execute(ctx, Command{Execute: "device_add", Args: args}, nil)
}

// DeviceDel asks for a device to be unplugged. Success means that the request
// was made: the guest may take its time, refuse, or never see it. See Unplug.
func (c *Client) DeviceDel(ctx context.Context, id string) error {
	return c.Execute(ctx, Command{Execute: "device_del", Args: map[string]any{"id": id}}, nil)
}

// WaitDeviceDeleted waits until no device has the given id, be it that it went
// before the call.
//
// A virtio device makes QEMU send DEVICE_DELETED twice: first with only a path,
// for the virtio part within, then with path and id for the device. Only the
// second one means that the id and the character device are free again.
func (c *Client) WaitDeviceDeleted(ctx context.Context, id string) error {
	events := c.Subscribe(EventDeviceDeleted)
	defer events.Close()
	exists, err := c.deviceExists(ctx, id)
	if err != nil || !exists {
		return err
	}
	return c.awaitDeleted(ctx, events, id)
}

// awaitDeleted waits for the event that ends device id.
func (c *Client) awaitDeleted(ctx context.Context, events *Subscription, id string) error {
	for {
		e, err := events.Next(ctx)
		switch {
		case errors.Is(err, ErrOverflow):
			exists, err := c.deviceExists(ctx, id)
			if err != nil || !exists {
				return err
			}
		case err != nil:
			return err
		case e.Event == EventDeviceDeleted && e.Data["device"] == id:
			return nil
		}
	}
}

// Unplug removes a device and returns when it is gone; a device that does not
// exist is gone. It repeats the request until then or until ctx ends, because
// firmware and a kernel that is still booting lose it without a trace, and a
// paused VM answers only after it was continued. QEMU does not tell a refusal
// that will pass ("already in the process of unplug") from one that will not, so
// a refused request is repeated too; if ctx ends, the error includes the last one.
func (c *Client) Unplug(ctx context.Context, id string) error {
	events := c.Subscribe(EventDeviceDeleted)
	defer events.Close()
	var refused error
	for {
		err := c.DeviceDel(ctx, id)
		if isClass(err, ClassDeviceNotFound) {
			return nil
		}
		if _, ok := errors.AsType[*Error](err); ok {
			refused = err // such as: a former request is still under way
		} else if err != nil {
			return errors.Join(err, refused)
		}
		try, cancel := context.WithTimeout(ctx, c.unplugRetry)
		err = c.awaitDeleted(try, events, id)
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return errors.Join(fmt.Errorf("qmp: unplug %s: %w", id, err), refused)
		}
	}
}

// deviceExists says whether a device with that id is plugged.
func (c *Client) deviceExists(ctx context.Context, id string) (bool, error) {
	var children []raw.ObjectPropertyInfo
	cmd := Command{Execute: "qom-list", Args: map[string]any{"path": "/machine/peripheral"}}
	if err := c.Execute(ctx, cmd, &children); err != nil {
		return false, err
	}
	return slices.ContainsFunc(children, func(p raw.ObjectPropertyInfo) bool { return p.Name == id }), nil
}
