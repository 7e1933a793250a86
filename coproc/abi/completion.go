// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"encoding/binary"
	"fmt"
)

// Flags of a completion.
type Flags uint32

// FlagReplayed: the response is the recorded one of an earlier execution
// under the same sequence number; the command was not executed again.
const FlagReplayed Flags = 1 << 0

const knownFlags = FlagReplayed

// Completion is the card's answer to one submission.
//
//	 0        1        2                 4                                 8
//	+--------+--------+-----------------+---------------------------------+
//	| opcode |reserved| status          | payload length                  |
//	+--------+--------+-----------------+---------------------------------+
//	| sequence number of the submission                                   | 8
//	+-----------------------------------+---------------------------------+
//	| slot                              | flags                           | 16
//	+-----------------------------------+---------------------------------+
//	| reserved                                                            | 24
//	+---------------------------------------------------------------------+
//	| payload ...                                                         | 32
//
// Written by the card, read by the driver.
type Completion struct {
	Op      Opcode // of the submission
	Status  Status
	Slot    uint32
	Seq     uint64 // of the submission
	Flags   Flags
	Payload []byte // parsed: aliases the message
}

// PutCompletionHeader writes the header of c to the first HeaderSize bytes of
// b for a payload of n bytes that is already behind it. It spares the card a
// copy of the response. Payload of c is not looked at.
func PutCompletionHeader(b []byte, c *Completion, n int) {
	h := b[:HeaderSize]
	clear(h)
	h[0] = byte(c.Op)
	binary.LittleEndian.PutUint16(h[2:], uint16(c.Status))
	binary.LittleEndian.PutUint32(h[4:], uint32(n))
	binary.LittleEndian.PutUint64(h[8:], c.Seq)
	binary.LittleEndian.PutUint32(h[16:], c.Slot)
	binary.LittleEndian.PutUint32(h[20:], uint32(c.Flags))
}

// AppendCompletion appends c in wire form to dst.
func AppendCompletion(dst []byte, c *Completion) []byte {
	var h [HeaderSize]byte
	PutCompletionHeader(h[:], c, len(c.Payload))
	return append(append(dst, h[:]...), c.Payload...)
}

// ParseCompletion reads one whole message and checks its form.
func ParseCompletion(b []byte) (Completion, error) {
	if err := checkFrame(b); err != nil {
		return Completion{}, fmt.Errorf("completion: %w", err)
	}
	if orBytes(b[24:HeaderSize]) != 0 {
		return Completion{}, fmt.Errorf("completion: reserved field is set: %w", ErrMalformed)
	}
	c, err := parseCompletionHeader(b)
	if err != nil {
		return Completion{}, fmt.Errorf("completion: %w", err)
	}
	c.Payload = b[HeaderSize:]
	return c, nil
}

// parseCompletionHeader reads what the header has in common with an entry of a
// queue: the first 24 bytes, but the length.
func parseCompletionHeader(b []byte) (Completion, error) {
	flags := Flags(binary.LittleEndian.Uint32(b[20:]))
	if b[1] != 0 || flags&^knownFlags != 0 {
		return Completion{}, fmt.Errorf("reserved field is set: %w", ErrMalformed)
	}
	return Completion{
		Op:     Opcode(b[0]),
		Status: Status(binary.LittleEndian.Uint16(b[2:])),
		Slot:   binary.LittleEndian.Uint32(b[16:]),
		Seq:    binary.LittleEndian.Uint64(b[8:]),
		Flags:  flags,
	}, nil
}
