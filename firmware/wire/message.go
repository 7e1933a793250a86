// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"errors"
	"fmt"

	"hwvtpm/coproc/abi"
)

// SupervisorFD is the descriptor of the supervisor channel in a worker.
const SupervisorFD = 3

// MaxMessage is the size of the largest message, in bytes.
const MaxMessage = readyHeader + abi.MaxEKs*ekSize + MaxText

// ErrMalformed: a message or the shared memory is not what this package makes.
var ErrMalformed = errors.New("malformed message on the supervisor channel")

// Kind says what a message is. It is the first word of each.
type Kind uint32

// The kinds. Those below 16 go from the card to the worker.
const (
	KindSetup Kind = 1
	KindSaved Kind = 2
	KindPark  Kind = 3

	// KindCertified is the answer to KindCertify.
	KindCertified Kind = 4

	KindReady Kind = 16
	KindSave  Kind = 17

	// KindSaveOlder is a Save that uses up the permission of MayRestore: the
	// state is new, and what is in it is older than what it replaces.
	KindSaveOlder Kind = 18

	// KindCertify is for a worker whose card is to certify endorsement keys.
	KindCertify Kind = 19
)

// MessageKind reads what a message is, 0 if it is too short to say.
func MessageKind(b []byte) Kind {
	if len(b) < 4 {
		return 0
	}
	return Kind(binary.LittleEndian.Uint32(b))
}

// shortSize is the size of Save, Saved and Park.
//
//	 0        4        8
//	+--------+--------+
//	| kind   | value  |
//	+--------+--------+
//
// The value is the length of a Save, the status of a Saved, and zero in a Park.
const shortSize = 8

func appendShort(dst []byte, k Kind, v uint32) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(k))
	return binary.LittleEndian.AppendUint32(dst, v)
}

func parseShort(b []byte, k Kind) (uint32, error) {
	if len(b) != shortSize || MessageKind(b) != k {
		return 0, fmt.Errorf("message of kind %d and %d bytes, want kind %d: %w", MessageKind(b), len(b), k, ErrMalformed)
	}
	return binary.LittleEndian.Uint32(b[4:]), nil
}

// Save asks the card to make a permanent state durable. It is in the shared
// memory at BlobOffset. The worker answers nobody before it has the Saved.
type Save struct {
	Length uint32 // at most MaxBlob
	Older  bool   // it is of kind KindSaveOlder
}

// AppendSave appends s in wire form to dst.
func AppendSave(dst []byte, s Save) []byte { return appendShort(dst, s.kind(), s.Length) }

func (s Save) kind() Kind {
	if s.Older {
		return KindSaveOlder
	}
	return KindSave
}

// ParseSave reads a Save of either kind.
func ParseSave(b []byte) (Save, error) {
	s := Save{Older: MessageKind(b) == KindSaveOlder}
	n, err := parseShort(b, s.kind())
	if err == nil && (n == 0 || n > MaxBlob) {
		err = fmt.Errorf("save of %d bytes: %w", n, ErrMalformed)
	}
	s.Length = n
	return s, err
}

// Saved is the answer to Save. StatusOK: the state is durable. StatusStorage: it
// was not written, and the old state is untouched. Anything else: nobody knows
// which of the two is on disk, and the worker exits.
type Saved struct {
	Status abi.Status
}

// AppendSaved appends s in wire form to dst.
func AppendSaved(dst []byte, s Saved) []byte { return appendShort(dst, KindSaved, uint32(s.Status)) }

// ParseSaved reads a Saved.
func ParseSaved(b []byte) (Saved, error) {
	v, err := parseShort(b, KindSaved)
	if err == nil && v > 0xffff {
		err = fmt.Errorf("saved with status %#x: %w", v, ErrMalformed)
	}
	return Saved{Status: abi.Status(v)}, err
}

// AppendPark appends the order to exit, with code 0, as soon as every submission
// that was read is answered.
func AppendPark(dst []byte) []byte { return appendShort(dst, KindPark, 0) }

// ParsePark checks the order to exit.
func ParsePark(b []byte) error {
	v, err := parseShort(b, KindPark)
	if err == nil && v != 0 {
		err = fmt.Errorf("park: %w", ErrMalformed)
	}
	return err
}
