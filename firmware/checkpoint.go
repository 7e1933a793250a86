// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"encoding/binary"
	"fmt"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/sealed"
)

const (
	ckptBlob       = 4 // offset of the blob in a checkpoint's place
	ckptHeaderSize = 128
	maxCheckpoint  = slotSize - ckptBlob - sealed.Overhead // bytes of plaintext
)

// Flags of a checkpoint. A journal entry behind it clears all.
const (
	// flagPristine: no command that could change anything ran since the
	// power cycle, so a reset has nothing to do.
	flagPristine = 1 << 0
	// flagShutdown: the last thing the guest did was TPM2_Shutdown, so the
	// end of the run is orderly, and may have to be resumed (S3 sleep).
	flagShutdown = 1 << 1
	// flagLoaded: no command that could change anything ran since this state
	// was loaded from outside (see slot.loadState).
	flagLoaded = 1 << 2

	knownFlags = flagPristine | flagShutdown | flagLoaded
)

// binding names one permanent state. The fingerprint is in it since a position
// says nothing where no anchor watches over it.
type binding struct {
	generation, epoch uint64
	print             sealed.Fingerprint
}

// bindingOf names a sealed permanent state.
func bindingOf(blob []byte) (binding, error) {
	l, err := sealed.ParseLabel(blob)
	if err != nil {
		return binding{}, err
	}
	print, err := sealed.FingerprintOf(blob)
	return binding{l.Generation, l.Epoch, print}, err
}

// checkpoint is one exact moment of the TPM: with the state file that it is
// bound to, it restores the TPM as it was when the command seq was answered.
//
// It is sealed, as a volatile state with the position of that permanent state.
// Its place in the volatile file has the length of the blob, 4 bytes, and the
// blob. The plaintext is:
//
//	 0            4            8                       16
//	+------------+------------+------------------------+
//	| serial     | flags      | last sequence number   |
//	+------------+------------+------------+-----------+
//	| response l.| volatile l.| reserved               | 16
//	+------------+------------+------------------------+
//	| fingerprint of the state it is bound to (32)     | 32
//	|                                                  | 48
//	+--------------------------------------------------+
//	| run id (32)                                      | 64
//	|                                                  | 80
//	+--------------------------------------------------+
//	| boot id of the machine                           | 96
//	+--------------------------------------------------+
//	| reserved (16)                                    | 112
//	+--------------------------------------------------+
//	| response to the command seq ...                  | 128
//	+--------------------------------------------------+
//	| volatile state ...                               |
//	+--------------------------------------------------+
//
// Little-endian.
type checkpoint struct {
	serial   uint32
	flags    uint32
	seq      uint64
	bound    binding
	run      [abi.RunIDSize]byte
	boot     [16]byte
	response []byte // parsed: aliases the plaintext
	volatile []byte // parsed: aliases the plaintext; secret
}

// putCheckpoint writes c to the front of b. The response and n bytes of volatile
// state are already there behind the header; c.volatile is not looked at.
func putCheckpoint(b []byte, c *checkpoint, n int) {
	le := binary.LittleEndian
	clear(b[:ckptHeaderSize])
	le.PutUint32(b[0:], c.serial)
	le.PutUint32(b[4:], c.flags)
	le.PutUint64(b[8:], c.seq)
	le.PutUint32(b[16:], uint32(len(c.response)))
	le.PutUint32(b[20:], uint32(n))
	copy(b[32:64], c.bound.print[:])
	copy(b[64:96], c.run[:])
	copy(b[96:112], c.boot[:])
}

// parseCheckpoint reads the plaintext of a blob with this label.
func parseCheckpoint(b []byte, l sealed.Label) (checkpoint, error) {
	le := binary.LittleEndian
	if len(b) < ckptHeaderSize {
		return checkpoint{}, fmt.Errorf("checkpoint of %d bytes: %w", len(b), errCorrupt)
	}
	resp, vol := le.Uint32(b[16:]), le.Uint32(b[20:])
	if resp > abi.MaxPayload || uint64(len(b)) != ckptHeaderSize+uint64(resp)+uint64(vol) {
		return checkpoint{}, fmt.Errorf("checkpoint lengths %d and %d: %w", resp, vol, errCorrupt)
	}
	body := b[ckptHeaderSize:]
	c := checkpoint{
		serial:   le.Uint32(b[0:]),
		flags:    le.Uint32(b[4:]),
		seq:      le.Uint64(b[8:]),
		bound:    binding{l.Generation, l.Epoch, sealed.Fingerprint(b[32:64])},
		run:      [abi.RunIDSize]byte(b[64:96]),
		boot:     [16]byte(b[96:112]),
		response: body[:resp],
		volatile: body[resp:],
	}
	if c.flags&^knownFlags != 0 {
		return checkpoint{}, fmt.Errorf("checkpoint flags %#x: %w", c.flags, errCorrupt)
	}
	return c, nil
}

// putBlob copies a sealed checkpoint to the place of its serial number.
func (v *volatileFile) putBlob(serial uint32, blob []byte) {
	place := v.slot(serial)
	binary.LittleEndian.PutUint32(place, uint32(len(blob)))
	copy(place[ckptBlob:], blob)
}

// appendBlob appends to dst what is in the place of a serial number, whatever it
// is. It is a copy, since somebody else may write the file.
func (v *volatileFile) appendBlob(dst []byte, serial uint32) ([]byte, error) {
	place := v.slot(serial)
	n := binary.LittleEndian.Uint32(place)
	if n > slotSize-ckptBlob {
		return dst, fmt.Errorf("checkpoint of %d bytes: %w", n, errCorrupt)
	}
	return append(dst, place[ckptBlob:ckptBlob+n]...), nil
}

// openCheckpoint opens the checkpoint in the place of a serial number. Its parts
// alias s.plain, which the caller clears.
func (s *slot) openCheckpoint(v *volatileFile, serial uint32) (checkpoint, error) {
	var err error
	if s.blob, err = v.appendBlob(s.blob[:0], serial); err != nil {
		return checkpoint{}, err
	}
	plain, label, err := s.seals.Open(s.plain[:0], sealed.KindVolatile, s.blob)
	if err != nil {
		return checkpoint{}, fmt.Errorf("checkpoint: %w: %w", errCorrupt, err)
	}
	c, err := parseCheckpoint(plain, label)
	if err != nil {
		return checkpoint{}, err
	}
	if c.serial != serial || c.boot != s.store.bootID() {
		return checkpoint{}, fmt.Errorf("checkpoint %d of boot %x is in the place of %d: %w", c.serial, c.boot, serial, errCorrupt)
	}
	return c, nil
}

// current finds the checkpoint that counts, and how much of the journal.
//
// It is the committed one, if that is bound to the state file. A worker that
// died between the rename of a new state and the commit leaves the committed one
// bound to the old state, and its successor, complete, bound to the new.
func (s *slot) current(v *volatileFile) (checkpoint, int, error) {
	word, err := v.committed()
	if err != nil {
		return checkpoint{}, 0, err
	}
	c, err := s.openCheckpoint(v, word.serial)
	if err != nil {
		return checkpoint{}, 0, err
	}
	if c.bound == s.bound {
		return c, word.journal, nil
	}
	next, err := s.openCheckpoint(v, word.serial+1)
	if err != nil || next.bound != s.bound {
		return checkpoint{}, 0, fmt.Errorf("no checkpoint belongs to the state file: %w", errCorrupt)
	}
	v.commit(commitWord{serial: next.serial})
	return next, 0, nil
}
