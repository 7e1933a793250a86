// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/sealed"
)

// Version history of the table:
//
//	1  first
const tableVersion = 1

const (
	tableMagic      = "hwvtpm-s"
	tableHeaderSize = 16
	recordSize      = 144 + maxEKs*ekSize
	nameField       = 64
	maxEKs          = 4
	ekSize          = 72

	// MaxSlots is how many slots a table can have.
	MaxSlots = 4096
)

const recordLocked = 1 << 0

// Record is what the table says of a slot.
type Record struct {
	ID        sealed.SlotID
	Number    uint32 // below MaxSlots
	Name      string
	AccessKey [32]byte // Ed25519 public key
	Keys      abi.Keys
	Banks     abi.Banks
	Created   int64 // seconds since 1970
	Locked    bool
	EKs       []abi.EK // at most 4
}

// appendTable appends the table's plaintext to dst. The records are in the
// order of their numbers.
//
//	 0                         8            12           16
//	+-------------------------+------------+------------+
//	| magic "hwvtpm-s"        | version    | records    |
//	+-------------------------+------------+------------+
//	| records, 432 bytes each, ascending by number ...  | 16
//	+---------------------------------------------------+
//
// A record:
//
//	 0            4            8            12           16
//	+---------------------------------------------------+
//	| slot id (16)                                      |
//	+------------+------------+------------+------------+
//	| number     | flags      | keys       | banks      | 16
//	+------------+------------+------------+------------+
//	| created, s since 1970   | EKs        | reserved   | 32
//	+-------------------------+------------+------------+
//	| access key (32)                                   | 48
//	|                                                   | 64
//	+---------------------------------------------------+
//	| name, padded with zeros (64)                      | 80
//	:                                                   :
//	+---------------------------------------------------+
//	| 4 EKs of 72 bytes each: handle (4), length of     | 144
//	| name (2), name padded with zeros (66)             |
//	:                                                   :
//	+---------------------------------------------------+
//
// Little-endian. Flags: bit 0 locked.
func appendTable(dst []byte, records []Record) []byte {
	dst = append(dst, tableMagic...)
	dst = binary.LittleEndian.AppendUint32(dst, tableVersion)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(records)))
	for i := range records {
		dst = appendRecord(dst, &records[i])
	}
	return dst
}

func appendRecord(dst []byte, r *Record) []byte {
	var b [recordSize]byte
	le := binary.LittleEndian
	copy(b[0:], r.ID[:])
	le.PutUint32(b[16:], r.Number)
	if r.Locked {
		le.PutUint32(b[20:], recordLocked)
	}
	le.PutUint32(b[24:], uint32(r.Keys))
	le.PutUint32(b[28:], uint32(r.Banks))
	le.PutUint64(b[32:], uint64(r.Created))
	le.PutUint32(b[40:], uint32(len(r.EKs)))
	copy(b[48:], r.AccessKey[:])
	copy(b[80:80+nameField], r.Name)
	for i, ek := range r.EKs {
		e := b[144+i*ekSize:]
		le.PutUint32(e, ek.Handle)
		le.PutUint16(e[4:], uint16(len(ek.Name)))
		copy(e[6:ekSize], ek.Name)
	}
	return append(dst, b[:]...)
}

// parseTable reads a table. There is one form of every table: what reads
// differently from how it is written is damaged.
func parseTable(b []byte) ([]Record, error) {
	if len(b) < tableHeaderSize || !bytes.HasPrefix(b, []byte(tableMagic)) {
		return nil, fmt.Errorf("not a table of slots: %w", sealed.ErrDamaged)
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != tableVersion {
		return nil, fmt.Errorf("table has version %d, this program knows %d: %w", v, tableVersion, sealed.ErrVersion)
	}
	n := binary.LittleEndian.Uint32(b[12:])
	if n > MaxSlots || uint64(len(b)) != tableHeaderSize+uint64(n)*recordSize {
		return nil, fmt.Errorf("table of %d slots in %d bytes: %w", n, len(b), sealed.ErrDamaged)
	}
	var records []Record
	for at := tableHeaderSize; at < len(b); at += recordSize {
		r, err := parseRecord(b[at : at+recordSize])
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	if err := checkRecords(records); err != nil {
		return nil, fmt.Errorf("table: %w: %w", err, sealed.ErrDamaged)
	}
	if !bytes.Equal(appendTable(nil, records), b) {
		return nil, fmt.Errorf("table has what this program does not write: %w", sealed.ErrDamaged)
	}
	return records, nil
}

func parseRecord(b []byte) (Record, error) {
	le := binary.LittleEndian
	r := Record{
		ID:        sealed.SlotID(b[0:16]),
		Number:    le.Uint32(b[16:]),
		Locked:    le.Uint32(b[20:]) == recordLocked,
		Keys:      abi.Keys(le.Uint32(b[24:])),
		Banks:     abi.Banks(le.Uint32(b[28:])),
		Created:   int64(le.Uint64(b[32:])),
		AccessKey: [32]byte(b[48:80]),
		Name:      string(bytes.TrimRight(b[80:80+nameField], "\x00")),
	}
	eks := le.Uint32(b[40:])
	if eks > maxEKs {
		return Record{}, fmt.Errorf("table: slot with %d endorsement keys: %w", eks, sealed.ErrDamaged)
	}
	for i := range int(eks) {
		e := b[144+i*ekSize:]
		n := le.Uint16(e[4:])
		if n > abi.MaxEKName {
			return Record{}, fmt.Errorf("table: name of %d bytes: %w", n, sealed.ErrDamaged)
		}
		r.EKs = append(r.EKs, abi.EK{Handle: le.Uint32(e), Name: bytes.Clone(e[6 : 6+n])})
	}
	return r, nil
}

// checkRecords says whether the records can be one table: in order, and no two
// with anything that names them in common.
func checkRecords(records []Record) error {
	names, ids := map[string]bool{}, map[sealed.SlotID]bool{{}: true} // the zero id is the card's
	for i, r := range records {
		switch {
		case !abi.ValidName(r.Name) || names[r.Name]:
			return fmt.Errorf("slot %d has name %q", r.Number, r.Name)
		case ids[r.ID]:
			return fmt.Errorf("slot %d has id %x", r.Number, r.ID)
		case r.Number >= MaxSlots || i > 0 && r.Number <= records[i-1].Number:
			return fmt.Errorf("slot %d is out of order", r.Number)
		case !r.Keys.Valid() || !r.Banks.Valid() || len(r.EKs) > maxEKs:
			return fmt.Errorf("slot %d has keys %#x, banks %#x, %d endorsement keys", r.Number, uint32(r.Keys), uint32(r.Banks), len(r.EKs))
		}
		names[r.Name], ids[r.ID] = true, true
	}
	return nil
}
