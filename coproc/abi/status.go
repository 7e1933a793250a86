// SPDX-License-Identifier: Apache-2.0

package abi

import "strconv"

// Status is the outcome of a submission. Numbers are stable; 0x01-0x0f are
// faults of the submission, 0x10-0x1f states of the slot.
type Status uint16

// Status codes.
const (
	StatusOK         Status = 0x00
	StatusBadOpcode  Status = 0x01 // opcode not known
	StatusBadField   Status = 0x02 // malformed header or payload
	StatusBadVersion Status = 0x03 // no common version
	StatusSequence   Status = 0x04 // sequence number below the one on record
	StatusOrder      Status = 0x05 // opcode not allowed now: identify first, power on first
	StatusNoSlot     Status = 0x06 // slot number not on this card

	StatusInUse    Status = 0x10 // the slot's state is held by someone else
	StatusCorrupt  Status = 0x11 // the slot's state is damaged; nothing was changed
	StatusForeign  Status = 0x12 // a file of the state belongs to another slot
	StatusFailed   Status = 0x13 // exact state lost: TPM_RC_FAILURE until reset or new run
	StatusInternal Status = 0x14 // the card could not do it; reason is in its log
	StatusLost     Status = 0x15 // no worker holds the slot: identify, power on, submit again (PCI only)

	StatusDenied   Status = 0x16 // the caller may not do this, or the proof is wrong
	StatusExists   Status = 0x17 // a slot of this name exists
	StatusRollback Status = 0x18 // the state is older than the newest that the card knows
	StatusFull     Status = 0x19 // no slot or no space is left
	StatusLocked   Status = 0x1a // the slot is locked by an administrator
	StatusWrongKey Status = 0x1b // the key at hand does not open the state
	StatusStorage  Status = 0x1c // the state could not be written; what was there before stands

	StatusUnsupported Status = 0x1d // the card does not understand its own TPM well enough for this
)

var statusNames = map[Status]string{
	StatusOK:         "ok",
	StatusBadOpcode:  "bad opcode",
	StatusBadField:   "bad field",
	StatusBadVersion: "bad version",
	StatusSequence:   "stale sequence number",
	StatusOrder:      "out of order",
	StatusNoSlot:     "no such slot",
	StatusInUse:      "in use",
	StatusCorrupt:    "corrupt",
	StatusForeign:    "foreign",
	StatusFailed:     "failed",
	StatusInternal:   "internal error",
	StatusLost:       "worker lost",
	StatusDenied:     "denied",
	StatusExists:     "exists already",
	StatusRollback:   "rolled back",
	StatusFull:       "full",
	StatusLocked:     "locked",
	StatusWrongKey:   "wrong key",
	StatusStorage:    "not stored",

	StatusUnsupported: "not supported",
}

// String gives the status in words, or its number.
func (s Status) String() string {
	if n, ok := statusNames[s]; ok {
		return n
	}
	return "status 0x" + strconv.FormatUint(uint64(s), 16)
}
