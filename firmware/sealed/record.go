// SPDX-License-Identifier: Apache-2.0

package sealed

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
)

// Version history of the anchor's record:
//
//	1  first
const (
	recordVersion    = 1 // written
	recordMinVersion = 1 // oldest reader that understands what is written
)

const (
	recordMagic      = "hwvtpm-a"
	recordHeaderSize = 80
	recordEntrySize  = 32
	maxEntries       = 1 << 16
	maxRecordSize    = recordHeaderSize + maxEntries*recordEntrySize + sha256.Size
)

// position is a moment in a slot's life. Positions are ordered by epoch, then by
// generation.
type position struct{ epoch, generation uint64 }

// destroyed is the generation of a slot that may be no more, so that none of its states
// is accepted.
const destroyed = math.MaxUint64

func (p position) before(q position) bool { return newer(q.epoch, q.generation, p.epoch, p.generation) }
func (p position) String() string         { return fmt.Sprintf("%d.%d", p.epoch, p.generation) }

// record is what an anchor writes: the newest position of each slot.
//
//	 0                         8            12           16
//	+-------------------------+------------+------------+
//	| magic "hwvtpm-a"        | version    | min version|
//	+-------------------------+------------+------------+
//	| counter                 | epoch                   | 16
//	+-------------------------+------------+------------+
//	| epoch base              | adoptions  | entries    | 32
//	+-------------------------+------------+------------+
//	| anchor key's id (16)                              | 48
//	+---------------------------------------------------+
//	| counter's id (16)                                 | 64
//	+---------------------------------------------------+
//	| entry: slot id (16)                               | 80
//	|        epoch            | generation              |
//	+-------------------------+-------------------------+
//	| more entries, in the order of their slot ids ...  |
//	+---------------------------------------------------+
//	| HMAC-SHA256 of all before it, by the anchor key   |
//	| (32)                                              |
//	+---------------------------------------------------+
//
// Little-endian. A record counts while the monotonic counter has the value in it,
// or is one short of it.
type record struct {
	counter   uint64
	counterID CounterID
	epoch     uint64 // of the run that wrote it
	base      uint64 // an epoch is this plus the counter's value at its start
	adoptions uint32 // how often an operator set the anchor aside
	table     map[SlotID]position
}

func compareIDs(a, b SlotID) int { return bytes.Compare(a[:], b[:]) }

// appendTable appends the entries in their one order.
func appendTable(dst []byte, table map[SlotID]position) []byte {
	for _, id := range slices.SortedFunc(maps.Keys(table), compareIDs) {
		dst = append(dst, id[:]...)
		dst = binary.LittleEndian.AppendUint64(dst, table[id].epoch)
		dst = binary.LittleEndian.AppendUint64(dst, table[id].generation)
	}
	return dst
}

// anchorKey authenticates records.
type anchorKey struct {
	key *Key
	id  KeyID
}

func newAnchorKey(s *Store) (anchorKey, error) {
	key, err := s.derive(labelAnchor, "")
	if err != nil {
		return anchorKey{}, err
	}
	k := anchorKey{key: key}
	id := k.mac(append(bytes.Clone(labelKeyID), firstBlock...)) // HKDF-Expand, as for slots
	copy(k.id[:], id)
	return k, nil
}

func (k anchorKey) mac(b []byte) []byte {
	h := hmac.New(sha256.New, k.key.b[:])
	h.Write(b)
	return h.Sum(nil)
}

// appendRecord appends the file content for r to dst.
func (k anchorKey) appendRecord(dst []byte, r *record) []byte {
	start := len(dst)
	var h [recordHeaderSize]byte
	le := binary.LittleEndian
	copy(h[0:], recordMagic)
	le.PutUint32(h[8:], recordVersion)
	le.PutUint32(h[12:], recordMinVersion)
	le.PutUint64(h[16:], r.counter)
	le.PutUint64(h[24:], r.epoch)
	le.PutUint64(h[32:], r.base)
	le.PutUint32(h[40:], r.adoptions)
	le.PutUint32(h[44:], uint32(len(r.table)))
	copy(h[48:], k.id[:])
	copy(h[64:], r.counterID[:])
	dst = appendTable(append(dst, h[:]...), r.table)
	return append(dst, k.mac(dst[start:])...)
}

// parseRecord reads and authenticates a record.
func (k anchorKey) parseRecord(b []byte) (*record, error) {
	le := binary.LittleEndian
	if len(b) < recordHeaderSize+sha256.Size || len(b) > maxRecordSize || !bytes.HasPrefix(b, []byte(recordMagic)) {
		return nil, fmt.Errorf("not an anchor record (%d bytes): %w", len(b), ErrDamaged)
	}
	if v := le.Uint32(b[12:]); v > recordVersion {
		return nil, fmt.Errorf("anchor record needs version %d, this program has %d: %w", v, recordVersion, ErrVersion)
	}
	if id := KeyID(b[48:]); id != k.id {
		return nil, fmt.Errorf("anchor record is under key %x, this card has %x: %w", id, k.id, ErrWrongKey)
	}
	body, tail := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	if !hmac.Equal(k.mac(body), tail) {
		return nil, fmt.Errorf("anchor record: %w", ErrDamaged)
	}
	r := &record{
		counter:   le.Uint64(b[16:]),
		counterID: CounterID(b[64:]),
		epoch:     le.Uint64(b[24:]),
		base:      le.Uint64(b[32:]),
		adoptions: le.Uint32(b[40:]),
		table:     map[SlotID]position{},
	}
	entries := body[recordHeaderSize:]
	if uint64(le.Uint32(b[44:]))*recordEntrySize != uint64(len(entries)) {
		return nil, fmt.Errorf("anchor record header is inconsistent: %w", ErrDamaged)
	}
	for e := range slices.Chunk(entries, recordEntrySize) {
		r.table[SlotID(e)] = position{le.Uint64(e[16:]), le.Uint64(e[24:])}
	}
	if !bytes.Equal(appendTable(nil, r.table), entries) {
		return nil, fmt.Errorf("anchor record is not in order: %w", ErrDamaged)
	}
	return r, nil
}
