// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"hwvtpm/coproc/abi"
)

const (
	ckptHeaderSize = 128
	ckptVolatile   = ckptHeaderSize + abi.MaxPayload // offset of the volatile state
	maxVolatile    = slotSize - ckptVolatile
)

// Flags of a checkpoint. A journal entry behind it clears both.
const (
	// flagPristine: no command that could change anything ran since the
	// power cycle, so a reset has nothing to do.
	flagPristine = 1 << 0
	// flagShutdown: the last thing the guest did was TPM2_Shutdown, so the
	// end of the run is orderly, and may have to be resumed (S3 sleep).
	flagShutdown = 1 << 1

	knownFlags = flagPristine | flagShutdown
)

// checkpoint is one exact moment of the TPM: with the state file that it is
// bound to, it restores the TPM as it was when the command seq was answered.
//
//	 0            4            8                       16
//	+------------+------------+------------------------+
//	| CRC-32C    | serial     | last sequence number   |
//	+------------+------------+------------+-----------+
//	| response length         | volatile l.| flags     | 16
//	+-------------------------+------------+-----------+
//	| sum of the state file it is bound to (32)        | 32
//	|                                                  | 48
//	+--------------------------------------------------+
//	| run id (32)                                      | 64
//	|                                                  | 80
//	+--------------------------------------------------+
//	| reserved (32)                                    | 96
//	|                                                  | 112
//	+--------------------------------------------------+
//	| response to the command seq (room for 4096)      | 128
//	+--------------------------------------------------+
//	| volatile state (secret)                          | 4224
//	+--------------------------------------------------+
//
// Little-endian; the CRC covers the header behind it, the response and the
// volatile state.
type checkpoint struct {
	serial   uint32
	seq      uint64
	flags    uint32
	bound    stateSum
	run      [abi.RunIDSize]byte
	response []byte // parsed: aliases the mapping
	volatile []byte // parsed: aliases the mapping
}

// putCheckpoint writes c to b, a checkpoint's place. The volatile state is
// already there, n bytes at ckptVolatile; c.volatile is not looked at.
func putCheckpoint(b []byte, c *checkpoint, n int) {
	le := binary.LittleEndian
	clear(b[:ckptHeaderSize])
	le.PutUint32(b[4:], c.serial)
	le.PutUint64(b[8:], c.seq)
	le.PutUint64(b[16:], uint64(len(c.response)))
	le.PutUint32(b[24:], uint32(n))
	le.PutUint32(b[28:], c.flags)
	copy(b[32:64], c.bound[:])
	copy(b[64:96], c.run[:])
	copy(b[ckptHeaderSize:], c.response)
	le.PutUint32(b[0:], ckptSum(b, len(c.response), n))
}

func ckptSum(b []byte, resp, vol int) uint32 {
	s := crc32.Update(0, castagnoli, b[4:ckptHeaderSize+resp])
	return crc32.Update(s, castagnoli, b[ckptVolatile:ckptVolatile+vol])
}

// parseCheckpoint reads a checkpoint's place.
func parseCheckpoint(b []byte) (checkpoint, error) {
	le := binary.LittleEndian
	if len(b) != slotSize {
		return checkpoint{}, fmt.Errorf("checkpoint of %d bytes: %w", len(b), errCorrupt)
	}
	resp, vol := le.Uint64(b[16:]), le.Uint32(b[24:])
	if resp > abi.MaxPayload || vol > maxVolatile {
		return checkpoint{}, fmt.Errorf("checkpoint lengths %d and %d: %w", resp, vol, errCorrupt)
	}
	if ckptSum(b, int(resp), int(vol)) != le.Uint32(b) {
		return checkpoint{}, fmt.Errorf("checkpoint checksum is wrong: %w", errCorrupt)
	}
	c := checkpoint{
		serial:   le.Uint32(b[4:]),
		seq:      le.Uint64(b[8:]),
		flags:    le.Uint32(b[28:]),
		bound:    stateSum(b[32:64]),
		run:      [abi.RunIDSize]byte(b[64:96]),
		response: b[ckptHeaderSize : ckptHeaderSize+int(resp)],
		volatile: b[ckptVolatile : ckptVolatile+int(vol)],
	}
	if c.flags&^knownFlags != 0 {
		return checkpoint{}, fmt.Errorf("checkpoint flags %#x: %w", c.flags, errCorrupt)
	}
	return c, nil
}

// current finds the checkpoint that counts, given the sum of the state file.
//
// It is the committed one, if that is bound to this state. A worker that died
// between the rename of a new state and the commit leaves the committed one
// bound to the old state, and its successor, complete, bound to the new.
func (v *volatileFile) current(sum stateSum) (checkpoint, int, error) {
	word, err := v.committed()
	if err != nil {
		return checkpoint{}, 0, err
	}
	c, err := parseCheckpoint(v.slot(word.serial))
	if err != nil {
		return checkpoint{}, 0, err
	}
	if c.serial != word.serial {
		return checkpoint{}, 0, fmt.Errorf("checkpoint %d is in the place of %d: %w", c.serial, word.serial, errCorrupt)
	}
	if c.bound == sum {
		return c, word.journal, nil
	}
	next, err := parseCheckpoint(v.slot(word.serial + 1))
	if err != nil || next.serial != word.serial+1 || next.bound != sum {
		return checkpoint{}, 0, fmt.Errorf("no checkpoint belongs to the state file: %w", errCorrupt)
	}
	v.commit(commitWord{serial: next.serial})
	return next, 0, nil
}
