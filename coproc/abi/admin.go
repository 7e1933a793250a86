// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"encoding/binary"
	"fmt"
)

// Opcodes of the admin queue of a PCI function. Sequence numbers are only
// echoed there, and the queue takes no other opcode.
const (
	OpCardIdentify Opcode = 0x41 // no payload -> CardIdentity
	OpQueueCreate  Opcode = 0x42 // payload QueueConfig; the slot is in the header
	OpQueueDelete  Opcode = 0x43 // no payload; ends the slot's worker without a completion
)

// Sizes of admin payloads, in bytes.
const (
	CardIdentitySize = 64
	QueueConfigSize  = 32
)

// CardIdentity is the answer to OpCardIdentify.
//
//	 0                4                6                8
//	+----------------+----------------+----------------+
//	| magic "HVTM"   | lowest version | highest version| 0
//	+----------------+----------------+----------------+
//	| slots          | largest payload                 | 8
//	+----------------+---------------------------------+
//	| firmware version 0x00MMmmpp | reserved           | 16
//	+-----------------------------+--------------------+
//	| serial number (16 bytes, zero if it has none)    | 24
//	|                                                  | 32
//	+--------------------------------------------------+
//	| reserved                                         | 40
//	:                                                  :
//	+--------------------------------------------------+
//
// The versions are those of the mailbox that the card's slots speak; each slot
// settles on one by OpIdentify on its own queue.
type CardIdentity struct {
	Min, Max   uint16
	Slots      uint32
	MaxPayload uint32
	Firmware   uint32
	Serial     [16]byte
}

// AppendCardIdentity appends id in wire form to dst.
func AppendCardIdentity(dst []byte, id *CardIdentity) []byte {
	var b [CardIdentitySize]byte
	le := binary.LittleEndian
	le.PutUint32(b[0:], magic)
	le.PutUint16(b[4:], id.Min)
	le.PutUint16(b[6:], id.Max)
	le.PutUint32(b[8:], id.Slots)
	le.PutUint32(b[12:], id.MaxPayload)
	le.PutUint32(b[16:], id.Firmware)
	copy(b[24:40], id.Serial[:])
	return append(dst, b[:]...)
}

// ParseCardIdentity reads a CardIdentity.
func ParseCardIdentity(b []byte) (CardIdentity, error) {
	le := binary.LittleEndian
	if len(b) != CardIdentitySize || le.Uint32(b) != magic || orBytes(b[20:24])|orBytes(b[40:]) != 0 {
		return CardIdentity{}, fmt.Errorf("card identity: %w", ErrMalformed)
	}
	id := CardIdentity{
		Min:        le.Uint16(b[4:]),
		Max:        le.Uint16(b[6:]),
		Slots:      le.Uint32(b[8:]),
		MaxPayload: le.Uint32(b[12:]),
		Firmware:   le.Uint32(b[16:]),
	}
	copy(id.Serial[:], b[24:40])
	if id.Min > id.Max {
		return CardIdentity{}, fmt.Errorf("card identity: versions %d to %d: %w", id.Min, id.Max, ErrMalformed)
	}
	return id, nil
}

// QueueConfig is the payload of OpQueueCreate: the queue pair of a slot.
//
//	 0                4                6                8
//	+--------------------------------------------------+
//	| IOVA of the submission queue                     | 0
//	+--------------------------------------------------+
//	| IOVA of the completion queue                     | 8
//	+----------------+----------------+----------------+
//	| reserved       | entries        | MSI-X vector   | 16
//	+----------------+----------------+----------------+
//	| reserved                                         | 24
//	+--------------------------------------------------+
type QueueConfig struct {
	SQ, CQ  uint64 // IOVA, aligned to PageSize
	Entries uint16 // of each of both
	Vector  uint16
}

// AppendQueueConfig appends c in wire form to dst.
func AppendQueueConfig(dst []byte, c *QueueConfig) []byte {
	var b [QueueConfigSize]byte
	le := binary.LittleEndian
	le.PutUint64(b[0:], c.SQ)
	le.PutUint64(b[8:], c.CQ)
	le.PutUint16(b[20:], c.Entries)
	le.PutUint16(b[22:], c.Vector)
	return append(dst, b[:]...)
}

// ParseQueueConfig reads a QueueConfig and checks its form.
func ParseQueueConfig(b []byte) (QueueConfig, error) {
	if len(b) != QueueConfigSize || orBytes(b[16:20])|orBytes(b[24:]) != 0 {
		return QueueConfig{}, fmt.Errorf("queue: %w", ErrMalformed)
	}
	le := binary.LittleEndian
	c := QueueConfig{
		SQ:      le.Uint64(b[0:]),
		CQ:      le.Uint64(b[8:]),
		Entries: le.Uint16(b[20:]),
		Vector:  le.Uint16(b[22:]),
	}
	if err := c.check(); err != nil {
		return QueueConfig{}, err
	}
	return c, nil
}

func (c *QueueConfig) check() error {
	if (c.SQ|c.CQ)%PageSize != 0 || !ValidEntries(uint32(c.Entries)) {
		return fmt.Errorf("queue of %d entries at %#x and %#x: %w", c.Entries, c.SQ, c.CQ, ErrMalformed)
	}
	return nil
}
