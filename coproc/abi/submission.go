// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Sizes of the wire format, in bytes.
const (
	HeaderSize = 32
	MaxPayload = 4096 // a TPM's largest command and response (libtpms, PC Client)
	MaxMessage = HeaderSize + MaxPayload
	RunIDSize  = 32
)

// Opcode selects what a submission asks for.
type Opcode uint8

// Opcodes.
const (
	OpIdentify Opcode = 0x01 // payload Hello -> Identity, or text if the status is not OK
	OpPowerOn  Opcode = 0x02 // payload run id (RunIDSize) -> PowerOnReply
	OpReset    Opcode = 0x03 // no payload -> no payload
	OpExecute  Opcode = 0x04 // payload TPM command -> TPM response
	OpClose    Opcode = 0x05 // no payload -> no payload; state saved, the card lets go
	OpHealth   Opcode = 0x06 // no payload -> HealthReply
)

// ErrMalformed is the cause of every parse error of this package.
var ErrMalformed = errors.New("malformed message")

// Submission is one request of the driver.
//
//	 0        1        2                 4                                 8
//	+--------+--------+-----------------+---------------------------------+
//	| opcode |locality| reserved        | payload length                  |
//	+--------+--------+-----------------+---------------------------------+
//	| sequence number (OpExecute, OpHash; else echoed only)               | 8
//	+-----------------------------------+---------------------------------+
//	| slot                              | reserved                        | 16
//	+-----------------------------------+---------------------------------+
//	| reserved                                                            | 24
//	+---------------------------------------------------------------------+
//	| payload ...                                                         | 32
//
// Written by the driver, read by the card.
type Submission struct {
	Op       Opcode
	Locality uint8 // 0-4, of OpExecute; OpHash is from 4 in any case
	Slot     uint32
	Seq      uint64
	Payload  []byte // parsed: aliases the message
}

// PutSubmissionHeader writes the header of s to the first HeaderSize bytes of
// b for a payload of n bytes. Payload of s is not looked at.
func PutSubmissionHeader(b []byte, s *Submission, n int) {
	h := b[:HeaderSize]
	clear(h)
	h[0] = byte(s.Op)
	h[1] = s.Locality
	binary.LittleEndian.PutUint32(h[4:], uint32(n))
	binary.LittleEndian.PutUint64(h[8:], s.Seq)
	binary.LittleEndian.PutUint32(h[16:], s.Slot)
}

// AppendSubmission appends s in wire form to dst.
func AppendSubmission(dst []byte, s *Submission) []byte {
	var h [HeaderSize]byte
	PutSubmissionHeader(h[:], s, len(s.Payload))
	return append(append(dst, h[:]...), s.Payload...)
}

// ParseSubmission reads one whole message. It checks form only: lengths,
// reserved fields, locality; whether an opcode is known is the card's affair.
func ParseSubmission(b []byte) (Submission, error) {
	if err := checkFrame(b); err != nil {
		return Submission{}, fmt.Errorf("submission: %w", err)
	}
	s, err := parseSubmissionHeader(b)
	if err != nil {
		return Submission{}, fmt.Errorf("submission: %w", err)
	}
	s.Payload = b[HeaderSize:]
	return s, nil
}

// parseSubmissionHeader reads all of a header but the length. What names the
// submission is there even with an error, so that it can be answered.
func parseSubmissionHeader(b []byte) (Submission, error) {
	s := Submission{
		Op:       Opcode(b[0]),
		Locality: b[1],
		Slot:     binary.LittleEndian.Uint32(b[16:]),
		Seq:      binary.LittleEndian.Uint64(b[8:]),
	}
	if b[2]|b[3]|orBytes(b[20:HeaderSize]) != 0 {
		return s, fmt.Errorf("reserved field is set: %w", ErrMalformed)
	}
	if s.Locality > MaxLocality {
		return s, fmt.Errorf("locality %d: %w", s.Locality, ErrMalformed)
	}
	return s, nil
}

// MaxLocality is the highest locality (TCG Part 1, "Locality"; the extended
// localities 32-255 are not used on a PC).
const MaxLocality = 4

// checkFrame checks what both headers share: size and the length field.
func checkFrame(b []byte) error {
	if len(b) < HeaderSize || len(b) > MaxMessage {
		return fmt.Errorf("%d bytes: %w", len(b), ErrMalformed)
	}
	if n := binary.LittleEndian.Uint32(b[4:]); uint64(n) != uint64(len(b)-HeaderSize) {
		return fmt.Errorf("length field %d, payload %d: %w", n, len(b)-HeaderSize, ErrMalformed)
	}
	return nil
}

func orBytes(b []byte) byte {
	var or byte
	for _, c := range b {
		or |= c
	}
	return or
}
