// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode"
)

// Opcodes for the management of slots, on the admin queue of a PCI function
// and on a daemon's socket. Those marked "admin" are for administrators of the
// host; the rest is for everybody who reaches the card. If the status is not
// OK, the payload of the completion is UTF-8 text of at most [MaxText] bytes
// that says why, and what to do about it.
const (
	OpSlotCreate    Opcode = 0x44 // payload SlotCreate -> SlotInfo; admin
	OpSlotList      Opcode = 0x45 // payload ListRequest -> up to MaxListed SlotInfo, none: the end; admin
	OpSlotShow      Opcode = 0x46 // payload name -> SlotInfo
	OpSlotChallenge Opcode = 0x47 // payload name -> Challenge, used once, replaced by the next of the session
	OpSlotOpen      Opcode = 0x48 // slot; payload Proof -> no payload; over a socket with two descriptors: data, control
	OpSlotPark      Opcode = 0x49 // slot -> no payload; "in use" if it is busy; admin
	OpSlotDestroy   Opcode = 0x4a // slot; payload SlotRef -> signed Statement; "in use" if it is open; admin
	OpSlotClone     Opcode = 0x4b // source slot, not open; payload SlotCreate with CreateNewIdentity -> SlotInfo; admin
	OpSlotAdopt     Opcode = 0x4c // slot; payload reason, 1 to MaxReason bytes of text -> no payload; admin
	OpSlotLock      Opcode = 0x4d // slot -> no payload; "in use" if it is open; admin
	OpSlotUnlock    Opcode = 0x4e // slot -> no payload; admin
	OpSlotImport    Opcode = 0x50 // payload ImportChunk -> no payload, but SlotInfo to the last; admin
	OpStatement     Opcode = 0x51 // slot or CardSlot; payload StatementRequest -> signed Statement; admin
	OpCardCounters  Opcode = 0x52 // no payload -> CardCounters
	OpCardHealth    Opcode = 0x53 // no payload -> CardHealth
	OpCardKey       Opcode = 0x54 // no payload -> SubjectPublicKeyInfo, DER, of the card's ECDSA P-256 key
	OpSlotRestore   Opcode = 0x55 // slot, not open; payload reason as of OpSlotAdopt -> no payload; one OpStateLoad may go back; admin
)

// 0x4f is kept for the export of a slot.

// CardSlot is the slot number that stands for the card itself.
const CardSlot = 0xffffffff

// Limits of the management of slots.
const (
	MaxText   = 512 // bytes of a refusal's text
	MaxReason = 256 // bytes of the reason of an adoption
	MaxName   = 63  // bytes of a slot's name
	MaxListed = 16  // slots in one answer to OpSlotList

	nameField = 64
)

// ValidName tells whether a slot can have this name: a letter or digit, then
// up to 62 letters, digits, dots, underscores or hyphens, all ASCII. So a name
// can stand in a file name, a label of a metric and a command line.
func ValidName(name string) bool {
	if len(name) == 0 || len(name) > MaxName {
		return false
	}
	for i := range len(name) {
		c := name[i]
		alnum := c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
		if !alnum && (i == 0 || c != '.' && c != '_' && c != '-') {
			return false
		}
	}
	return true
}

// putName writes a name to its field, padded with zeros. One that is too long
// is cut: check with ValidName before.
func putName(field []byte, name string) {
	copy(field[:MaxName], name)
}

// parseName reads a field that putName wrote.
func parseName(field []byte) (string, error) {
	name := strings.TrimRight(string(field), "\x00")
	if !ValidName(name) {
		return "", fmt.Errorf("name %q: %w", name, ErrMalformed)
	}
	return name, nil
}

// Text makes the text of a refusal fit to be shown: valid UTF-8 of at most
// MaxText bytes, with nothing that a terminal would act on.
func Text(payload []byte) string {
	s := strings.ToValidUTF8(string(payload[:min(len(payload), MaxText)]), "")
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}

// ListRequest is the payload of OpSlotList.
//
//	 0                4
//	+----------------+
//	| from           |
//	+----------------+
type ListRequest struct {
	From uint32 // lowest slot number to list
}

// AppendListRequest appends r in wire form to dst.
func AppendListRequest(dst []byte, r ListRequest) []byte {
	return binary.LittleEndian.AppendUint32(dst, r.From)
}

// ParseListRequest reads a ListRequest.
func ParseListRequest(b []byte) (ListRequest, error) {
	if len(b) != 4 {
		return ListRequest{}, fmt.Errorf("list request of %d bytes: %w", len(b), ErrMalformed)
	}
	return ListRequest{From: binary.LittleEndian.Uint32(b)}, nil
}
