// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"encoding/binary"
	"fmt"
)

// Sizes of queue entries, in bytes.
const (
	SubmissionEntrySize = 64
	CompletionEntrySize = HeaderSize
)

// SubmissionEntry is one entry of a submission queue: the header of a
// Submission, and where its payload and the answer's are.
//
//	 0                                 4                                 8
//	+---------------------------------------------------------------------+
//	| header of Submission (32 bytes)                                     | 0
//	:                                                                     :
//	+---------------------------------------------------------------------+
//	| IOVA of the payload; zero if its length is zero                     | 32
//	+---------------------------------------------------------------------+
//	| IOVA of the answer's buffer                                         | 40
//	+---------------------------------------------------------------------+
//	| reserved                                                            | 48
//	|                                                                     | 56
//	+---------------------------------------------------------------------+
//
// Both buffers are aligned to PageSize; the answer's is a whole page. Written
// by the driver before it moves the tail, read once by the card.
type SubmissionEntry struct {
	Submission                 // Payload is not part of the entry
	Length              uint32 // of the payload
	PayloadAt, AnswerAt uint64 // IOVA
}

// AppendSubmissionEntry appends e in wire form to dst.
func AppendSubmissionEntry(dst []byte, e *SubmissionEntry) []byte {
	var b [SubmissionEntrySize]byte
	PutSubmissionHeader(b[:], &e.Submission, int(e.Length))
	binary.LittleEndian.PutUint64(b[32:], e.PayloadAt)
	binary.LittleEndian.PutUint64(b[40:], e.AnswerAt)
	return append(dst, b[:]...)
}

// ParseSubmissionEntry reads an entry and checks its form. With an error the
// entry still has opcode, slot and sequence number, to be answered.
func ParseSubmissionEntry(b []byte) (SubmissionEntry, error) {
	if len(b) != SubmissionEntrySize {
		return SubmissionEntry{}, fmt.Errorf("submission entry of %d bytes: %w", len(b), ErrMalformed)
	}
	sub, err := parseSubmissionHeader(b)
	e := SubmissionEntry{
		Submission: sub,
		Length:     binary.LittleEndian.Uint32(b[4:]),
		PayloadAt:  binary.LittleEndian.Uint64(b[32:]),
		AnswerAt:   binary.LittleEndian.Uint64(b[40:]),
	}
	switch {
	case err != nil:
		return e, fmt.Errorf("submission entry: %w", err)
	case e.Length > MaxPayload:
		return e, fmt.Errorf("submission entry: payload of %d bytes: %w", e.Length, ErrMalformed)
	case orBytes(b[48:]) != 0:
		return e, fmt.Errorf("submission entry: reserved field is set: %w", ErrMalformed)
	case (e.PayloadAt|e.AnswerAt)%PageSize != 0 || e.Length == 0 && e.PayloadAt != 0:
		return e, fmt.Errorf("submission entry: buffers at %#x and %#x: %w", e.PayloadAt, e.AnswerAt, ErrMalformed)
	}
	return e, nil
}

// CompletionEntry is one entry of a completion queue: the header of a
// Completion, with the phase in what is reserved there.
//
//	 0                                 4                                 8
//	+---------------------------------------------------------------------+
//	| header of Completion, first 24 bytes                                | 0
//	:                                                                     :
//	+----------------+----------------+-----------------------------------+
//	| queue          | reserved       | bit 0: phase; others reserved     | 24
//	+----------------+----------------+-----------------------------------+
//
// The card writes the last word after all others, and after the answer. The
// phase is 1 on the card's first way through the queue and turns with each;
// the driver zeroes the queue before it creates it. So an entry is new if its
// phase is the one expected.
type CompletionEntry struct {
	Completion        // Payload is not part of the entry
	Length     uint32 // of the answer
	Queue      uint16
	Phase      bool
}

// CompletionPhase is the offset of the word with the phase.
const CompletionPhase = 28

// PhaseWord is the word at CompletionPhase.
func PhaseWord(phase bool) uint32 {
	if phase {
		return 1
	}
	return 0
}

// AppendCompletionEntry appends e in wire form to dst.
func AppendCompletionEntry(dst []byte, e *CompletionEntry) []byte {
	var b [CompletionEntrySize]byte
	PutCompletionHeader(b[:], &e.Completion, int(e.Length))
	binary.LittleEndian.PutUint16(b[24:], e.Queue)
	binary.LittleEndian.PutUint32(b[CompletionPhase:], PhaseWord(e.Phase))
	return append(dst, b[:]...)
}

// ParseCompletionEntry reads an entry and checks its form.
func ParseCompletionEntry(b []byte) (CompletionEntry, error) {
	if len(b) != CompletionEntrySize {
		return CompletionEntry{}, fmt.Errorf("completion entry of %d bytes: %w", len(b), ErrMalformed)
	}
	c, err := parseCompletionHeader(b)
	if err != nil {
		return CompletionEntry{}, fmt.Errorf("completion entry: %w", err)
	}
	e := CompletionEntry{
		Completion: c,
		Length:     binary.LittleEndian.Uint32(b[4:]),
		Queue:      binary.LittleEndian.Uint16(b[24:]),
	}
	phase := binary.LittleEndian.Uint32(b[CompletionPhase:])
	if b[26]|b[27] != 0 || phase > 1 || e.Length > MaxPayload {
		return CompletionEntry{}, fmt.Errorf("completion entry: length %d, phase %#x: %w", e.Length, phase, ErrMalformed)
	}
	e.Phase = phase == 1
	return e, nil
}
