// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/sealed"
)

// SetupFlags say what a worker is to do, and how.
type SetupFlags uint32

// Flags of a Setup.
const (
	// Create: make a TPM, save it, say Ready and exit.
	Create SetupFlags = 1 << 0
	// Clone: make a TPM of another slot's, with an identity of its own, save
	// it, say Ready and exit.
	Clone SetupFlags = 1 << 1
	// Greeted: the client's identify was answered by an earlier worker.
	Greeted SetupFlags = 1 << 2
	// Powered: the client has powered on: resume the stored run at once.
	Powered SetupFlags = 1 << 3
	// GenericCurves: do without OpenSSL's own code for NIST curves.
	GenericCurves SetupFlags = 1 << 4
	// MayRestore: an administrator permits the slot to go back, once, to an
	// older state that is loaded (abi.OpStateLoad).
	MayRestore SetupFlags = 1 << 5
	// Import: take over the TPM whose permanent state, by libtpms and in clear,
	// is in the shared memory; save it, say Ready and exit. The worker clears the
	// shared memory.
	Import SetupFlags = 1 << 6
	// Recertify: write new certificates of the endorsement keys into the slot's
	// NV memory, save that, say Ready and exit. It is refused if a run may go on.
	Recertify SetupFlags = 1 << 7
	// Certifies: the card answers to Certify. A worker that makes a TPM asks it
	// then.
	Certifies SetupFlags = 1 << 8
	// Failed: the slot had failed when its last worker was parked, and stays so
	// until the client's next reset or run.
	Failed SetupFlags = 1 << 9

	knownFlags = Create | Clone | Greeted | Powered | GenericCurves | MayRestore | Import | Recertify | Certifies | Failed
	makers     = Create | Clone | Import
	tasks      = makers | Recertify
)

const setupSize = 192

// Setup makes a process the worker of a slot. It comes with descriptors: see the
// package's documentation. It holds keys: clear the buffers it was in.
//
//	 0            4            8            12           16
//	+------------+------------+------------+------------+
//	| kind       | flags      | blob length| keys       |
//	+------------+------------+------------+------------+
//	| banks      | reserved   | epoch                   | 16
//	+------------+------------+-------------------------+
//	| oldest epoch            | oldest generation       | 32
//	+-------------------------+-------------------------+
//	| oldest sequence number  | used generation         | 48
//	+-------------------------+-------------------------+
//	| boot id of the machine                            | 64
//	+---------------------------------------------------+
//	| slot id                                           | 80
//	+---------------------------------------------------+
//	| slot key (32)                                     | 96
//	|                                                   | 112
//	+---------------------------------------------------+
//	| source's slot id                                  | 128
//	+---------------------------------------------------+
//	| source's slot key (32)                            | 144
//	|                                                   | 160
//	+---------------------------------------------------+
//	| reserved (16)                                     | 176
//	+---------------------------------------------------+
type Setup struct {
	Flags SetupFlags
	Slot  sealed.SlotID
	Key   [sealed.KeySize]byte // of the slot, and of no other

	// Source and SourceKey are those of the slot whose state is in the shared
	// memory. With Clone only.
	Source    sealed.SlotID
	SourceKey [sealed.KeySize]byte

	Boot  [16]byte // boot id of the machine, with which volatile states end
	Epoch uint64   // for new permanent states

	// MinEpoch and MinGeneration are the newest position that the card knows
	// of: an older state is refused with StatusRollback. 0, 0: it knows none.
	MinEpoch, MinGeneration uint64

	// MinSeq is the last sequence number on record when the slot's last worker
	// of this card process ended. If the volatile state has only older ones,
	// the slot comes up failed. 0: not known, and the volatile state may be of any
	// moment of its run that has the present permanent state.
	MinSeq uint64

	// UsedGeneration is the newest generation of this epoch that any worker
	// asked this card process to save, whether or not that came about. The
	// worker uses none up to it, so that no position is taken twice. 0: none.
	UsedGeneration uint64

	BlobLen uint32    // of the permanent state in the shared memory; 0 with Create
	Keys    abi.Keys  // Create and Clone only
	Banks   abi.Banks // Create only
}

// making tells whether the worker is to make a TPM, not to serve one.
func (s *Setup) making() bool { return s.Flags&makers != 0 }

// Task tells whether the worker is to do one thing and exit, not to serve.
func (s *Setup) Task() bool { return s.Flags&tasks != 0 }

// Descriptors is how many come with the message.
func (s *Setup) Descriptors() int {
	switch {
	case s.making():
		return 1
	case s.Task():
		return 2
	}
	return MaxDescriptors
}

// Clear overwrites the keys.
func (s *Setup) Clear() {
	clear(s.Key[:])
	clear(s.SourceKey[:])
}

// AppendSetup appends s in wire form to dst.
func AppendSetup(dst []byte, s *Setup) []byte {
	var b [setupSize]byte
	le := binary.LittleEndian
	le.PutUint32(b[0:], uint32(KindSetup))
	le.PutUint32(b[4:], uint32(s.Flags))
	le.PutUint32(b[8:], s.BlobLen)
	le.PutUint32(b[12:], uint32(s.Keys))
	le.PutUint32(b[16:], uint32(s.Banks))
	le.PutUint64(b[24:], s.Epoch)
	le.PutUint64(b[32:], s.MinEpoch)
	le.PutUint64(b[40:], s.MinGeneration)
	le.PutUint64(b[48:], s.MinSeq)
	le.PutUint64(b[56:], s.UsedGeneration)
	copy(b[64:], s.Boot[:])
	copy(b[80:], s.Slot[:])
	copy(b[96:], s.Key[:])
	copy(b[128:], s.Source[:])
	copy(b[144:], s.SourceKey[:])
	dst = append(dst, b[:]...)
	clear(b[:])
	return dst
}

// ParseSetup reads a Setup.
func ParseSetup(b []byte) (Setup, error) {
	le := binary.LittleEndian
	if len(b) != setupSize || MessageKind(b) != KindSetup || le.Uint32(b[20:]) != 0 || !zero(b[176:]) {
		return Setup{}, fmt.Errorf("setup of %d bytes: %w", len(b), ErrMalformed)
	}
	s := Setup{
		Flags:          SetupFlags(le.Uint32(b[4:])),
		BlobLen:        le.Uint32(b[8:]),
		Keys:           abi.Keys(le.Uint32(b[12:])),
		Banks:          abi.Banks(le.Uint32(b[16:])),
		Epoch:          le.Uint64(b[24:]),
		MinEpoch:       le.Uint64(b[32:]),
		MinGeneration:  le.Uint64(b[40:]),
		MinSeq:         le.Uint64(b[48:]),
		UsedGeneration: le.Uint64(b[56:]),
		Boot:           [16]byte(b[64:80]),
		Slot:           sealed.SlotID(b[80:96]),
		Key:            [sealed.KeySize]byte(b[96:128]),
		Source:         sealed.SlotID(b[128:144]),
		SourceKey:      [sealed.KeySize]byte(b[144:176]),
	}
	if err := s.check(); err != nil {
		s.Clear()
		return Setup{}, err
	}
	return s, nil
}

// check refuses what contradicts itself.
func (s *Setup) check() error {
	why := ""
	switch {
	case s.Flags&^knownFlags != 0 || bits.OnesCount32(uint32(s.Flags&tasks)) > 1:
		why = "flags"
	case s.Flags&Certifies != 0 && !s.Task(), s.Flags&(Recertify|Certifies) == Recertify:
		why = "flags"
	case s.Task() && s.Flags&(Greeted|Powered|MayRestore) != 0, s.Flags&(Powered|Failed) != 0 && s.Flags&Greeted == 0:
		why = "flags"
	case s.Flags&(Powered|Failed) == Powered|Failed:
		why = "flags"
	case s.BlobLen > MaxBlob || (s.BlobLen == 0) != (s.Flags&Create != 0):
		why = "blob length"
	case !s.Keys.Valid() || s.Flags&Create != 0 && !s.Banks.Valid():
		why = "keys or banks"
	case s.Slot == (sealed.SlotID{}) || s.Key == ([sealed.KeySize]byte{}):
		why = "slot without id or key"
	case s.Flags&Clone != 0 && (s.Source == (sealed.SlotID{}) || s.SourceKey == ([sealed.KeySize]byte{})):
		why = "source without id or key"
	}
	if why != "" {
		return fmt.Errorf("setup: %s: %w", why, ErrMalformed)
	}
	return nil
}

func zero(b []byte) bool {
	var or byte
	for _, x := range b {
		or |= x
	}
	return or == 0
}
