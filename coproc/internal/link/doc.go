// SPDX-License-Identifier: Apache-2.0

// Package link is the driver's end of a slot channel (docs/slot-channel.md): the
// data socket and the control socket that lead to one worker.
package link
