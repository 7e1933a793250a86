// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"encoding/binary"
	"fmt"
)

// Version is the mailbox version of this package; MinVersion is the oldest
// that it still speaks.
const (
	Version    = 1
	MinVersion = 1
)

// magic opens Hello and Identity: "HVTM" read as little-endian.
const magic = 0x4d545648

// Sizes of the identify payloads, in bytes.
const (
	HelloSize    = 8
	IdentitySize = 64
)

// Hello is the payload of OpIdentify: the versions the driver speaks.
//
//	 0                4                6                8
//	+----------------+----------------+----------------+
//	| magic "HVTM"   | lowest version | highest version|
//	+----------------+----------------+----------------+
type Hello struct {
	Min, Max uint16
}

// AppendHello appends h in wire form to dst.
func AppendHello(dst []byte, h Hello) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, magic)
	dst = binary.LittleEndian.AppendUint16(dst, h.Min)
	return binary.LittleEndian.AppendUint16(dst, h.Max)
}

// ParseHello reads a Hello.
func ParseHello(b []byte) (Hello, error) {
	if len(b) != HelloSize || binary.LittleEndian.Uint32(b) != magic {
		return Hello{}, fmt.Errorf("hello: %w", ErrMalformed)
	}
	h := Hello{Min: binary.LittleEndian.Uint16(b[4:]), Max: binary.LittleEndian.Uint16(b[6:])}
	if h.Min > h.Max {
		return Hello{}, fmt.Errorf("hello: versions %d to %d: %w", h.Min, h.Max, ErrMalformed)
	}
	return h, nil
}

// Choose gives the highest version that both sides speak.
func (h Hello) Choose() (uint16, bool) {
	v := min(h.Max, Version)
	return v, v >= h.Min && v >= MinVersion
}

// Identity is the card's answer to Hello.
//
//	 0                4                6                8
//	+----------------+----------------+----------------+
//	| magic "HVTM"   | version chosen | reserved       |
//	+----------------+----------------+----------------+
//	| engine version 0x00MMmmpp       | slots          | 8
//	+---------------------------------+----------------+
//	| largest payload                 | reserved       | 16
//	+---------------------------------+----------------+
//	| generation of the durable state                  | 24
//	+--------------------------------------------------+
//	| last sequence number on record                   | 32
//	+--------------------------------------------------+
//	| slot id (16 bytes, random, fixed for life)       | 40
//	|                                                  | 48
//	+--------------------------------------------------+
//	| reserved                                         | 56
//	+--------------------------------------------------+
type Identity struct {
	Version       uint16
	EngineVersion uint32
	Slots         uint32
	MaxPayload    uint32
	Generation    uint64
	LastSeq       uint64
	SlotID        [16]byte
}

// AppendIdentity appends id in wire form to dst.
func AppendIdentity(dst []byte, id *Identity) []byte {
	var b [IdentitySize]byte
	le := binary.LittleEndian
	le.PutUint32(b[0:], magic)
	le.PutUint16(b[4:], id.Version)
	le.PutUint32(b[8:], id.EngineVersion)
	le.PutUint32(b[12:], id.Slots)
	le.PutUint32(b[16:], id.MaxPayload)
	le.PutUint64(b[24:], id.Generation)
	le.PutUint64(b[32:], id.LastSeq)
	copy(b[40:56], id.SlotID[:])
	return append(dst, b[:]...)
}

// ParseIdentity reads an Identity.
func ParseIdentity(b []byte) (Identity, error) {
	le := binary.LittleEndian
	if len(b) != IdentitySize || le.Uint32(b) != magic {
		return Identity{}, fmt.Errorf("identity: %w", ErrMalformed)
	}
	if orBytes(b[6:8])|orBytes(b[20:24])|orBytes(b[56:64]) != 0 {
		return Identity{}, fmt.Errorf("identity: reserved field is set: %w", ErrMalformed)
	}
	id := Identity{
		Version:       le.Uint16(b[4:]),
		EngineVersion: le.Uint32(b[8:]),
		Slots:         le.Uint32(b[12:]),
		MaxPayload:    le.Uint32(b[16:]),
		Generation:    le.Uint64(b[24:]),
		LastSeq:       le.Uint64(b[32:]),
	}
	copy(id.SlotID[:], b[40:56])
	return id, nil
}
