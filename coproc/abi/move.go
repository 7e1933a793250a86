// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"encoding/binary"
	"fmt"
)

// Opcodes by which a slot's state is moved: out of the slot for a snapshot or
// another process, and into it in the place of a power-on. Who carries the state
// cannot read it: both parts are sealed by the card. What a save or a begin
// prepares is the worker's, and goes with it: StatusOrder then says to start
// over.
const (
	OpStateSave  Opcode = 0x07 // no payload -> StateSizes; keeps a copy of the present state, for OpStateRead
	OpStateRead  Opcode = 0x08 // payload StatePlace -> bytes of the copy; fewer than MaxPayload: the end
	OpStateBegin Opcode = 0x09 // payload StateSizes -> no payload; makes room for OpStateWrite
	OpStateWrite Opcode = 0x0a // payload StatePlace and bytes -> no payload; each part in order, without gaps
	OpStateLoad  Opcode = 0x0b // payload run id -> PowerOnReply, or text if the status is not OK
)

// StatePart names one of the two parts of a state that is moved.
type StatePart uint32

// The parts.
const (
	StatePermanent StatePart = 1
	StateVolatile  StatePart = 2
)

// Sizes of payloads and limits of the parts, in bytes.
const (
	StateSizesSize = 16
	StatePlaceSize = 8

	// MaxStateChunk is how much one OpStateWrite carries.
	MaxStateChunk = MaxPayload - StatePlaceSize

	MaxStatePermanent = 1<<20 + 4096
	MaxStateVolatile  = 1 << 16
)

// StateSizes are the sizes of the parts of a state, in bytes.
//
//	 0                4                8
//	+----------------+----------------+----------------+
//	| permanent part | volatile part  | reserved (8)   |
//	+----------------+----------------+----------------+
type StateSizes struct {
	Permanent, Volatile uint32 // none is 0
}

// AppendStateSizes appends s in wire form to dst.
func AppendStateSizes(dst []byte, s StateSizes) []byte {
	var b [StateSizesSize]byte
	binary.LittleEndian.PutUint32(b[0:], s.Permanent)
	binary.LittleEndian.PutUint32(b[4:], s.Volatile)
	return append(dst, b[:]...)
}

// ParseStateSizes reads StateSizes.
func ParseStateSizes(b []byte) (StateSizes, error) {
	if len(b) != StateSizesSize || orBytes(b[8:]) != 0 {
		return StateSizes{}, fmt.Errorf("state sizes: %w", ErrMalformed)
	}
	s := StateSizes{Permanent: binary.LittleEndian.Uint32(b[0:]), Volatile: binary.LittleEndian.Uint32(b[4:])}
	if s.Permanent == 0 || s.Permanent > MaxStatePermanent || s.Volatile == 0 || s.Volatile > MaxStateVolatile {
		return StateSizes{}, fmt.Errorf("state of %d and %d bytes: %w", s.Permanent, s.Volatile, ErrMalformed)
	}
	return s, nil
}

// StatePlace is where bytes of a state are.
//
//	 0                4                8
//	+----------------+----------------+
//	| part           | offset         |
//	+----------------+----------------+
type StatePlace struct {
	Part   StatePart
	Offset uint32 // at most the part's largest size
}

// AppendStatePlace appends p in wire form to dst. In OpStateWrite the bytes
// follow.
func AppendStatePlace(dst []byte, p StatePlace) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(p.Part))
	return binary.LittleEndian.AppendUint32(dst, p.Offset)
}

// ParseStatePlace reads a StatePlace, and gives what follows it.
func ParseStatePlace(b []byte) (p StatePlace, rest []byte, err error) {
	if len(b) < StatePlaceSize {
		return p, nil, fmt.Errorf("place in a state: %w", ErrMalformed)
	}
	p = StatePlace{Part: StatePart(binary.LittleEndian.Uint32(b)), Offset: binary.LittleEndian.Uint32(b[4:])}
	if p.Part != StatePermanent && p.Part != StateVolatile || p.Offset > p.Part.limit() {
		return StatePlace{}, nil, fmt.Errorf("place %d in part %d of a state: %w", p.Offset, p.Part, ErrMalformed)
	}
	return p, b[StatePlaceSize:], nil
}

func (p StatePart) limit() uint32 {
	if p == StateVolatile {
		return MaxStateVolatile
	}
	return MaxStatePermanent
}
