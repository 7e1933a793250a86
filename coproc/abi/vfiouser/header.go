// SPDX-License-Identifier: Apache-2.0

package vfiouser

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
)

var order = binary.NativeEndian

// Command is a request of the protocol (spec, "Commands").
type Command uint16

// Commands.
const (
	CmdVersion       Command = 1
	CmdDMAMap        Command = 2
	CmdDMAUnmap      Command = 3
	CmdGetInfo       Command = 4
	CmdGetRegionInfo Command = 5
	CmdGetIRQInfo    Command = 7
	CmdSetIRQs       Command = 8
	CmdRegionRead    Command = 9
	CmdRegionWrite   Command = 10
	CmdReset         Command = 13
)

// String names the command.
func (c Command) String() string {
	if r, ok := guards[c]; ok {
		return r.name
	}
	return "command " + strconv.Itoa(int(c))
}

// Flags of a header.
const (
	flagTypeMask = 0xf
	flagReply    = 1 << 0
	flagNoReply  = 1 << 4
	flagError    = 1 << 5
)

// Limits of a message, in bytes and descriptors.
const (
	headerSize  = 16
	MaxTransfer = 4096 // data of one region access, and of the version's JSON
	maxBody     = accessSize + MaxTransfer
	maxFDs      = 16 // max_msg_fds of both sides
)

// ErrProtocol is the cause of all errors over what the peer sent.
var ErrProtocol = errors.New("vfio-user protocol violation")

// header opens every message (spec, "Header").
//
//	 0                2                4                                 8
//	+----------------+----------------+---------------------------------+
//	| message id     | command        | size of the whole message       |
//	+----------------+----------------+---------------------------------+
//	| flags: type (bits 0-3), 4       | errno, in a reply with the      | 8
//	| no-reply, 5 error               | error flag                      |
//	+---------------------------------+---------------------------------+
type header struct {
	id      uint16
	command Command
	size    uint32
	flags   uint32
	errno   uint32
}

func (h header) append(dst []byte) []byte {
	dst = order.AppendUint16(dst, h.id)
	dst = order.AppendUint16(dst, uint16(h.command))
	dst = order.AppendUint32(dst, h.size)
	dst = order.AppendUint32(dst, h.flags)
	return order.AppendUint32(dst, h.errno)
}

// parseHeader reads a header and refuses one after which the stream cannot be
// followed any more.
func parseHeader(b []byte) (header, error) {
	if len(b) != headerSize {
		return header{}, fmt.Errorf("header of %d bytes: %w", len(b), ErrProtocol)
	}
	h := header{
		id:      order.Uint16(b[0:]),
		command: Command(order.Uint16(b[2:])),
		size:    order.Uint32(b[4:]),
		flags:   order.Uint32(b[8:]),
		errno:   order.Uint32(b[12:]),
	}
	switch {
	case h.size < headerSize || h.size > headerSize+maxBody:
		return header{}, fmt.Errorf("message of %d bytes: %w", h.size, ErrProtocol)
	case h.flags&flagTypeMask > flagReply:
		return header{}, fmt.Errorf("message type %d: %w", h.flags&flagTypeMask, ErrProtocol)
	}
	return h, nil
}
