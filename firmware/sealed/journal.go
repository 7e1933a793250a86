// SPDX-License-Identifier: Apache-2.0

package sealed

import (
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"slices"
)

const entryNonceSize = 12

// EntryOverhead is by how many bytes a sealed journal entry is longer than its
// plaintext.
const EntryOverhead = entryNonceSize + tagSize

// Journal seals entries that are written after one blob, each at a place of its
// own, such as its offset. All of them share a key, which follows from the
// blob's header and so is no other blob's. It has one owner at a time: that of
// its Slot, after whose Close it is of no use.
//
//	 0              12
//	+--------------+-----------------------------+-----------+
//	| nonce (12)   | ciphertext ...              | tag (16)  |
//	+--------------+-----------------------------+-----------+
//
// The place is the associated data. A place may be written more than once: what
// a crash left uncommitted is written again, differently. Therefore the nonce is
// a MAC, under the slot key, of the blob's salt, the place and the plaintext, and
// not the place: the same nonce comes again only with the same entry.
type Journal struct {
	slot *Slot
	aead cipher.AEAD
	salt [32]byte

	iv    [KeySize]byte // scratch
	place [8]byte       // scratch
}

// Journal makes the journal that follows a blob of this slot, which was sealed
// or opened by it: only its header is looked at.
func (c *Slot) Journal(blob []byte) (*Journal, error) {
	h, err := parseBlob(blob)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	if h.label.Slot != c.id || h.keyID != c.keyID || c.prf == nil {
		return nil, fmt.Errorf("journal of %s: %w", h.label, ErrForeign)
	}
	defer clear(c.key[:])
	aead, err := newGCM((*[KeySize]byte)(c.expand(&c.key, labelJournal, blob[:blobHeaderSize])))
	if err != nil {
		return nil, err
	}
	return &Journal{slot: c, aead: aead, salt: h.salt}, nil
}

// Seal appends to dst the sealed form of an entry at a place. The entry must not
// overlap with dst's free capacity.
func (j *Journal) Seal(dst []byte, place uint64, entry []byte) []byte {
	binary.LittleEndian.PutUint64(j.place[:], place)
	nonce := j.slot.expand(&j.iv, labelEntry, j.salt[:], j.place[:], entry)[:entryNonceSize]
	dst = slices.Grow(dst, EntryOverhead+len(entry))
	return j.aead.Seal(append(dst, nonce...), nonce, entry, j.place[:])
}

// Open appends to dst the plaintext of the entry at a place. What is not exactly
// an entry that was sealed for this journal and place is ErrDamaged.
func (j *Journal) Open(dst []byte, place uint64, sealed []byte) ([]byte, error) {
	if len(sealed) < EntryOverhead {
		return dst, fmt.Errorf("journal entry of %d bytes: %w", len(sealed), ErrDamaged)
	}
	binary.LittleEndian.PutUint64(j.place[:], place)
	out, err := j.aead.Open(dst, sealed[:entryNonceSize], sealed[entryNonceSize:], j.place[:])
	if err != nil {
		return dst, fmt.Errorf("journal entry at %d: %w", place, ErrDamaged)
	}
	return out, nil
}
