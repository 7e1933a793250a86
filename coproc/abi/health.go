// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"encoding/binary"
	"fmt"
)

// Sizes of the card's own figures, in bytes.
const (
	CardCountersSize = 128
	CardHealthSize   = 160

	counterWords = 12
)

// CardCounters is the answer to OpCardCounters. All count from the start of the
// card's firmware.
//
//	 0                         8                        16
//	+-------------------------+-------------------------+
//	| creates                 | destroys                | 0
//	+-------------------------+-------------------------+
//	| clones                  | adopts                  | 16
//	+-------------------------+-------------------------+
//	| opens                   | denied                  | 32
//	+-------------------------+-------------------------+
//	| parks                   | unparks                 | 48
//	+-------------------------+-------------------------+
//	| restarts                | commands                | 64
//	+-------------------------+-------------------------+
//	| saves                   | save errors             | 80
//	+-------------------------+-------------------------+
//	| reserved (32 bytes)                               | 96
//	+---------------------------------------------------+
type CardCounters struct {
	Creates, Destroys uint64
	Clones, Adopts    uint64
	Opens, Denied     uint64 // slots opened; proofs and rights refused
	Parks, Unparks    uint64
	Restarts          uint64 // workers that died unasked
	Commands          uint64 // TPM commands of all slots
	Saves, SaveErrors uint64 // durable states written, and not written
}

// words lists the counters in their order on the wire.
func (c *CardCounters) words() [counterWords]*uint64 {
	return [...]*uint64{&c.Creates, &c.Destroys, &c.Clones, &c.Adopts, &c.Opens, &c.Denied,
		&c.Parks, &c.Unparks, &c.Restarts, &c.Commands, &c.Saves, &c.SaveErrors}
}

// AppendCardCounters appends c in wire form to dst.
func AppendCardCounters(dst []byte, c *CardCounters) []byte {
	var b [CardCountersSize]byte
	for i, w := range c.words() {
		binary.LittleEndian.PutUint64(b[8*i:], *w)
	}
	return append(dst, b[:]...)
}

// ParseCardCounters reads CardCounters.
func ParseCardCounters(b []byte) (CardCounters, error) {
	if len(b) != CardCountersSize || orBytes(b[8*counterWords:]) != 0 {
		return CardCounters{}, fmt.Errorf("card counters: %w", ErrMalformed)
	}
	var c CardCounters
	for i, w := range c.words() {
		*w = binary.LittleEndian.Uint64(b[8*i:])
	}
	return c, nil
}

// Kinds of protection, of the card's storage key and against rollback.
const (
	ProtectionFile = 0 // a file: none against who reads or replaces the disk
	ProtectionTPM  = 1 // the host's TPM
)

// CardHealth is the answer to OpCardHealth, and the body of StatementHealth.
//
//	 0                         4                         8
//	+-------------------------+-------------------------+
//	| slots                   | live                    | 0
//	+-------------------------+-------------------------+
//	| parked                  | locked                  | 8
//	+-------------------------+-------------------------+
//	| faulted                 | spare workers           | 16
//	+-------------------------+-------------------------+
//	| epoch of the store                                | 24
//	+---------------------------------------------------+
//	| counter that the store is anchored in             | 32
//	+-------------------------+-------------------------+
//	| protection of the key   | of rollback             | 40
//	+-------------------------+-------------------------+
//	| firmware measurement (32 bytes)                   | 48
//	:                                                   :
//	+-------------------------+-------------------------+
//	| engine version          | reserved                | 80
//	+-------------------------+-------------------------+
//	| digest that is anchored (32 bytes)                | 88
//	:                                                   :
//	+---------------------------------------------------+
//	| up time, seconds                                  | 120
//	+---------------------------------------------------+
//	| reserved (32 bytes)                               | 128
//	+---------------------------------------------------+
type CardHealth struct {
	Slots, Live, Parked, Locked, Faulted uint32
	Spares                               uint32 // workers that wait for a slot
	Epoch, AnchorCounter                 uint64
	KeyProtection, RollbackProtection    uint32 // ProtectionFile, ProtectionTPM
	// Firmware is the measurement of the programs: SHA-256 over the SHA-256
	// of the daemon and the SHA-256 of the engine.
	Firmware      [32]byte
	EngineVersion uint32 // 0x00MMmmpp
	AnchorDigest  [32]byte
	Uptime        uint64 // seconds
}

// AppendCardHealth appends h in wire form to dst.
func AppendCardHealth(dst []byte, h *CardHealth) []byte {
	var b [CardHealthSize]byte
	le := binary.LittleEndian
	for i, w := range []uint32{h.Slots, h.Live, h.Parked, h.Locked, h.Faulted, h.Spares} {
		le.PutUint32(b[4*i:], w)
	}
	le.PutUint64(b[24:], h.Epoch)
	le.PutUint64(b[32:], h.AnchorCounter)
	le.PutUint32(b[40:], h.KeyProtection)
	le.PutUint32(b[44:], h.RollbackProtection)
	copy(b[48:80], h.Firmware[:])
	le.PutUint32(b[80:], h.EngineVersion)
	copy(b[88:120], h.AnchorDigest[:])
	le.PutUint64(b[120:], h.Uptime)
	return append(dst, b[:]...)
}

// ParseCardHealth reads a CardHealth.
func ParseCardHealth(b []byte) (CardHealth, error) {
	if len(b) != CardHealthSize || orBytes(b[84:88])|orBytes(b[128:]) != 0 {
		return CardHealth{}, fmt.Errorf("card health: %w", ErrMalformed)
	}
	le := binary.LittleEndian
	h := CardHealth{
		Slots:              le.Uint32(b[0:]),
		Live:               le.Uint32(b[4:]),
		Parked:             le.Uint32(b[8:]),
		Locked:             le.Uint32(b[12:]),
		Faulted:            le.Uint32(b[16:]),
		Spares:             le.Uint32(b[20:]),
		Epoch:              le.Uint64(b[24:]),
		AnchorCounter:      le.Uint64(b[32:]),
		KeyProtection:      le.Uint32(b[40:]),
		RollbackProtection: le.Uint32(b[44:]),
		Firmware:           [32]byte(b[48:80]),
		EngineVersion:      le.Uint32(b[80:]),
		AnchorDigest:       [32]byte(b[88:120]),
		Uptime:             le.Uint64(b[120:]),
	}
	if h.KeyProtection > ProtectionTPM || h.RollbackProtection > ProtectionTPM {
		return CardHealth{}, fmt.Errorf("card health: protection %d, %d: %w", h.KeyProtection, h.RollbackProtection, ErrMalformed)
	}
	return h, nil
}
