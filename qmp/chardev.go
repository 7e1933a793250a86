// SPDX-License-Identifier: Apache-2.0

package qmp

import (
	"context"
	"slices"

	"github.com/digitalocean/go-qemu/qmp/raw"
)

// ChardevAdd makes a character device that is connected, as client, to the UNIX
// socket path. QEMU connects before it replies: if nobody listens it refuses, and
// no character device is left behind.
func (c *Client) ChardevAdd(ctx context.Context, id, path string) error {
	type object = map[string]any
	return c.Execute(ctx, Command{Execute: "chardev-add", Args: object{
		"id": id,
		"backend": object{"type": "socket", "data": object{
			"addr":   object{"type": "unix", "data": object{"path": path}},
			"server": false,
		}},
	}}, nil)
}

// ChardevRemove removes a character device. QEMU refuses while a device uses it.
func (c *Client) ChardevRemove(ctx context.Context, id string) error {
	return c.Execute(ctx, Command{Execute: "chardev-remove", Args: map[string]any{"id": id}}, nil)
}

// chardevExists says whether a character device with that id is there.
func (c *Client) chardevExists(ctx context.Context, id string) (bool, error) {
	var all []raw.ChardevInfo
	if err := c.Execute(ctx, Command{Execute: "query-chardev"}, &all); err != nil {
		return false, err
	}
	return slices.ContainsFunc(all, func(i raw.ChardevInfo) bool { return i.Label == id }), nil
}
