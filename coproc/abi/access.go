// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"encoding/binary"
	"fmt"
)

// Sizes of structures of access to slots, in bytes.
const (
	ChallengeSize = 72
	ProofSize     = 64
	SlotRefSize   = 48
)

// Challenge is the answer to OpSlotChallenge: what has to be signed to open the
// slot.
//
//	 0                         4                         8
//	+-------------------------+-------------------------+
//	| number                  | reserved                | 0
//	+-------------------------+-------------------------+
//	| slot id (16 bytes)                                | 8
//	|                                                   | 16
//	+---------------------------------------------------+
//	| serial number of the card (16 bytes)              | 24
//	|                                                   | 32
//	+---------------------------------------------------+
//	| nonce (32 bytes)                                  | 40
//	:                                                   :
//	+---------------------------------------------------+
type Challenge struct {
	Number uint32
	ID     [16]byte
	Serial [16]byte
	Nonce  [32]byte
}

// AppendChallenge appends c in wire form to dst.
func AppendChallenge(dst []byte, c *Challenge) []byte {
	var b [ChallengeSize]byte
	binary.LittleEndian.PutUint32(b[0:], c.Number)
	copy(b[8:24], c.ID[:])
	copy(b[24:40], c.Serial[:])
	copy(b[40:72], c.Nonce[:])
	return append(dst, b[:]...)
}

// ParseChallenge reads a Challenge.
func ParseChallenge(b []byte) (Challenge, error) {
	if len(b) != ChallengeSize || orBytes(b[4:8]) != 0 {
		return Challenge{}, fmt.Errorf("challenge: %w", ErrMalformed)
	}
	c := Challenge{Number: binary.LittleEndian.Uint32(b)}
	copy(c.ID[:], b[8:24])
	copy(c.Serial[:], b[24:40])
	copy(c.Nonce[:], b[40:72])
	return c, nil
}

// openContext begins what is signed to open a slot, and nothing else that is
// ever signed with an access key.
const openContext = "hwvtpm open slot 1\x00"

// OpenMessage gives the bytes whose signature opens a slot: a context of its
// own, so that the signature is good for nothing else; card and slot, so that
// it cannot be passed on to another; and the nonce, so that it works once.
func OpenMessage(serial, id [16]byte, nonce [32]byte) []byte {
	b := make([]byte, 0, len(openContext)+64)
	b = append(b, openContext...)
	b = append(b, serial[:]...)
	b = append(b, id[:]...)
	return append(b, nonce[:]...)
}

// Proof is the payload of OpSlotOpen: the Ed25519 signature (RFC 8032) of
// OpenMessage by the slot's access key.
type Proof [ProofSize]byte

// AppendProof appends p in wire form to dst.
func AppendProof(dst []byte, p Proof) []byte { return append(dst, p[:]...) }

// ParseProof reads a Proof. Whether it is right is not looked at.
func ParseProof(b []byte) (Proof, error) {
	if len(b) != ProofSize {
		return Proof{}, fmt.Errorf("proof of %d bytes: %w", len(b), ErrMalformed)
	}
	return Proof(b), nil
}

// SlotRef is the payload of OpSlotDestroy. It names the slot by its id too, so
// that a slot made meanwhile under the same number is not destroyed.
//
//	 0                                                   8
//	+---------------------------------------------------+
//	| slot id (16 bytes)                                | 0
//	|                                                   | 8
//	+---------------------------------------------------+
//	| nonce for the receipt (32 bytes)                  | 16
//	:                                                   :
//	+---------------------------------------------------+
type SlotRef struct {
	ID    [16]byte
	Nonce [32]byte
}

// AppendSlotRef appends r in wire form to dst.
func AppendSlotRef(dst []byte, r *SlotRef) []byte {
	dst = append(dst, r.ID[:]...)
	return append(dst, r.Nonce[:]...)
}

// ParseSlotRef reads a SlotRef.
func ParseSlotRef(b []byte) (SlotRef, error) {
	if len(b) != SlotRefSize {
		return SlotRef{}, fmt.Errorf("slot reference of %d bytes: %w", len(b), ErrMalformed)
	}
	return SlotRef{ID: [16]byte(b[:16]), Nonce: [32]byte(b[16:])}, nil
}
