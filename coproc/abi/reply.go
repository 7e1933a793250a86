// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"encoding/binary"
	"fmt"
)

// Sizes of reply payloads, in bytes.
const (
	PowerOnReplySize = 16
	HealthReplySize  = 64
)

// PowerOnReply is the answer to OpPowerOn.
//
//	 0                         8                       16
//	+--------+----------------+------------------------+
//	| flags  | reserved (7)   | last sequence on record|
//	+--------+----------------+------------------------+
//
// Flags: bit 0 Resumed, bit 1 Pristine.
type PowerOnReply struct {
	// Resumed: the slot held this run already, and its volatile state is
	// what it was.
	Resumed bool
	// Pristine: the TPM is as after _TPM_Init; nothing has changed it since.
	Pristine bool
	LastSeq  uint64
}

// AppendPowerOnReply appends r in wire form to dst.
func AppendPowerOnReply(dst []byte, r PowerOnReply) []byte {
	var b [PowerOnReplySize]byte
	if r.Resumed {
		b[0] |= 1
	}
	if r.Pristine {
		b[0] |= 2
	}
	binary.LittleEndian.PutUint64(b[8:], r.LastSeq)
	return append(dst, b[:]...)
}

// ParsePowerOnReply reads a PowerOnReply.
func ParsePowerOnReply(b []byte) (PowerOnReply, error) {
	if len(b) != PowerOnReplySize || b[0] > 3 || orBytes(b[1:8]) != 0 {
		return PowerOnReply{}, fmt.Errorf("power-on reply: %w", ErrMalformed)
	}
	return PowerOnReply{
		Resumed:  b[0]&1 != 0,
		Pristine: b[0]&2 != 0,
		LastSeq:  binary.LittleEndian.Uint64(b[8:]),
	}, nil
}

// SlotState is what a slot does now.
type SlotState uint32

// States of a slot.
const (
	SlotOff     SlotState = 0 // opened, not powered on
	SlotRunning SlotState = 1
	SlotFailed  SlotState = 2 // answers TPM_RC_FAILURE until reset or a new run
)

// String names the state.
func (s SlotState) String() string {
	switch s {
	case SlotOff:
		return "off"
	case SlotRunning:
		return "running"
	case SlotFailed:
		return "failed"
	}
	return "unknown"
}

// HealthReply is the answer to OpHealth. Counters start at zero with the
// worker process.
//
//	 0                         8                       16
//	+------------+------------+------------------------+
//	| state      | worker pid | commands               |
//	+------------+------------+------------------------+
//	| checkpoints             | journaled              | 16
//	+-------------------------+------------------------+
//	| durable writes          | generation             | 32
//	+------------+------------+------------------------+
//	| engine     | reserved   | reserved               | 48
//	+------------+------------+------------------------+
type HealthReply struct {
	State         SlotState
	PID           uint32
	Commands      uint64
	Checkpoints   uint64
	Journaled     uint64
	DurableWrites uint64
	Generation    uint64
	EngineVersion uint32
}

// AppendHealthReply appends h in wire form to dst.
func AppendHealthReply(dst []byte, h *HealthReply) []byte {
	var b [HealthReplySize]byte
	le := binary.LittleEndian
	le.PutUint32(b[0:], uint32(h.State))
	le.PutUint32(b[4:], h.PID)
	le.PutUint64(b[8:], h.Commands)
	le.PutUint64(b[16:], h.Checkpoints)
	le.PutUint64(b[24:], h.Journaled)
	le.PutUint64(b[32:], h.DurableWrites)
	le.PutUint64(b[40:], h.Generation)
	le.PutUint32(b[48:], h.EngineVersion)
	return append(dst, b[:]...)
}

// ParseHealthReply reads a HealthReply.
func ParseHealthReply(b []byte) (HealthReply, error) {
	if len(b) != HealthReplySize || orBytes(b[52:]) != 0 {
		return HealthReply{}, fmt.Errorf("health reply: %w", ErrMalformed)
	}
	le := binary.LittleEndian
	h := HealthReply{
		State:         SlotState(le.Uint32(b[0:])),
		PID:           le.Uint32(b[4:]),
		Commands:      le.Uint64(b[8:]),
		Checkpoints:   le.Uint64(b[16:]),
		Journaled:     le.Uint64(b[24:]),
		DurableWrites: le.Uint64(b[32:]),
		Generation:    le.Uint64(b[40:]),
		EngineVersion: le.Uint32(b[48:]),
	}
	if h.State > SlotFailed {
		return HealthReply{}, fmt.Errorf("health reply: state %d: %w", h.State, ErrMalformed)
	}
	return h, nil
}
