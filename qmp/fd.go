// SPDX-License-Identifier: Apache-2.0

package qmp

import (
	"context"
	"os"

	"github.com/digitalocean/go-qemu/qmp/raw"
)

// GetFD gives QEMU a duplicate of f under a name, for options that take a file
// descriptor by name. QEMU closes a descriptor it had under the same name.
func (c *Client) GetFD(ctx context.Context, name string, f *os.File) error {
	cmd := Command{Execute: "getfd", Args: map[string]any{"fdname": name}}
	return c.ExecuteWithFD(ctx, cmd, nil, f)
}

// CloseFD closes a descriptor that GetFD gave.
func (c *Client) CloseFD(ctx context.Context, name string) error {
	return c.Execute(ctx, Command{Execute: "closefd", Args: map[string]any{"fdname": name}}, nil)
}

// AddFD gives QEMU a duplicate of f in a new descriptor set, which options that
// take a path can open as /dev/fdset/ID. The command remove-fd removes it.
func (c *Client) AddFD(ctx context.Context, f *os.File) (raw.AddfdInfo, error) {
	var info raw.AddfdInfo
	err := c.ExecuteWithFD(ctx, Command{Execute: "add-fd"}, &info, f)
	return info, err
}
