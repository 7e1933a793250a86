// SPDX-License-Identifier: Apache-2.0

package qmp

import (
	gqmp "github.com/digitalocean/go-qemu/qmp"
)

// Command is go-qemu's QMP command: a name and its arguments. It is an alias,
// so both spellings are one type and callers need not import go-qemu.
type Command = gqmp.Command

// Event is go-qemu's QMP event: a name, its data as decoded JSON (numbers are
// float64) and QEMU's time stamp.
type Event = gqmp.Event

// Version is go-qemu's form of the QEMU version in the greeting.
type Version = gqmp.Version

// Greeting is what the peer says first on a new connection.
// QMP spec "Server Greeting".
type Greeting struct {
	Version      Version  `json:"version"`
	Capabilities []string `json:"capabilities"`
}
