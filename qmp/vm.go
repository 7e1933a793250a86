// SPDX-License-Identifier: Apache-2.0

package qmp

import (
	"context"

	"github.com/digitalocean/go-qemu/qmp/raw"
)

// Names of the events that this project watches (QEMU QMP reference, "Events").
const (
	EventReset         = "RESET"
	EventShutdown      = "SHUTDOWN"
	EventStop          = "STOP"
	EventResume        = "RESUME"
	EventDeviceDeleted = "DEVICE_DELETED"
)

// SystemReset resets the VM as its reset button would. The RESET event comes
// on its own, usually after the reply.
func (c *Client) SystemReset(ctx context.Context) error {
	return c.Execute(ctx, Command{Execute: "system_reset"}, nil)
}

// Quit ends the QEMU process. The connection ends shortly after the reply.
func (c *Client) Quit(ctx context.Context) error {
	return c.Execute(ctx, Command{Execute: "quit"}, nil)
}

// Stop pauses the VM's processors.
func (c *Client) Stop(ctx context.Context) error {
	return c.Execute(ctx, Command{Execute: "stop"}, nil)
}

// Cont lets the VM's processors run.
func (c *Client) Cont(ctx context.Context) error {
	return c.Execute(ctx, Command{Execute: "cont"}, nil)
}

// QueryStatus returns the run state of the VM. A state newer than go-qemu's
// list is an error.
func (c *Client) QueryStatus(ctx context.Context) (raw.StatusInfo, error) {
	var s raw.StatusInfo
	err := c.Execute(ctx, Command{Execute: "query-status"}, &s)
	return s, err
}

// QueryUUID returns the VM's UUID, all zeroes if QEMU was given none.
func (c *Client) QueryUUID(ctx context.Context) (string, error) {
	var u raw.UUIDInfo
	err := c.Execute(ctx, Command{Execute: "query-uuid"}, &u)
	return u.UUID, err
}

// QueryName returns the VM's name, empty if QEMU was given none.
func (c *Client) QueryName(ctx context.Context) (string, error) {
	var n raw.NameInfo
	err := c.Execute(ctx, Command{Execute: "query-name"}, &n)
	if n.Name == nil {
		return "", err
	}
	return *n.Name, err
}
