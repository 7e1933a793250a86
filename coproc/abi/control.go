// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"encoding/binary"
	"fmt"
)

// ControlSize is the size of a control message, in bytes.
const ControlSize = 16

// ControlOp is what a control message asks for.
type ControlOp uint32

// Control operations.
const (
	ControlCancel ControlOp = 1 // Arg: sequence number to cancel. No answer.
	ControlPing   ControlOp = 2 // Arg: cookie. Answered with ControlPong.
	ControlPong   ControlOp = 3 // Arg: the cookie of the ping.
)

// Control is a message of the second channel, which can overtake a running
// command.
//
//	 0            4            8                       16
//	+------------+------------+------------------------+
//	| operation  | reserved   | argument               |
//	+------------+------------+------------------------+
type Control struct {
	Op  ControlOp
	Arg uint64
}

// AppendControl appends c in wire form to dst.
func AppendControl(dst []byte, c Control) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(c.Op))
	dst = binary.LittleEndian.AppendUint32(dst, 0)
	return binary.LittleEndian.AppendUint64(dst, c.Arg)
}

// ParseControl reads a Control.
func ParseControl(b []byte) (Control, error) {
	if len(b) != ControlSize || orBytes(b[4:8]) != 0 {
		return Control{}, fmt.Errorf("control message: %w", ErrMalformed)
	}
	c := Control{Op: ControlOp(binary.LittleEndian.Uint32(b)), Arg: binary.LittleEndian.Uint64(b[8:])}
	if c.Op < ControlCancel || c.Op > ControlPong {
		return Control{}, fmt.Errorf("control message: operation %d: %w", c.Op, ErrMalformed)
	}
	return c, nil
}
