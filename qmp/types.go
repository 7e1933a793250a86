// SPDX-License-Identifier: Apache-2.0

package qmp

import "fmt"

// Command is a QMP command: a name and its arguments. It has the fields of
// go-qemu's qmp.Command.
type Command struct {
	Execute string `json:"execute"`
	Args    any    `json:"arguments,omitempty"`
}

// Event is a QMP event: a name, its data as decoded JSON (numbers are float64)
// and QEMU's time stamp. It has the fields of go-qemu's qmp.Event.
type Event struct {
	Event     string         `json:"event"`
	Data      map[string]any `json:"data"`
	Timestamp struct {
		Seconds      int64 `json:"seconds"`
		Microseconds int64 `json:"microseconds"`
	} `json:"timestamp"`
}

// Version is the QEMU version in the greeting. It has the fields of go-qemu's
// qmp.Version.
type Version struct {
	Package string `json:"package"`
	QEMU    struct {
		Major int `json:"major"`
		Micro int `json:"micro"`
		Minor int `json:"minor"`
	} `json:"qemu"`
}

// String returns the version in the usual order: major, minor, micro.
func (v Version) String() string {
	return fmt.Sprintf("%d.%d.%d", v.QEMU.Major, v.QEMU.Minor, v.QEMU.Micro)
}

// Greeting is what the peer says first on a new connection.
// QMP spec "Server Greeting".
type Greeting struct {
	Version      Version  `json:"version"`
	Capabilities []string `json:"capabilities"`
}
