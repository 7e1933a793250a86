// SPDX-License-Identifier: Apache-2.0

package sealed

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"slices"
)

// nonce is the same for all blobs, since no key encrypts twice.
var nonce [12]byte

// Slot seals and opens the blobs of one slot. It has one owner at a time.
type Slot struct {
	id    SlotID
	keyID KeyID
	prf   hash.Hash // HMAC-SHA256 under the slot key; nil when closed
	rand  io.Reader // tests replace it

	// The newest blob with a position sealed or opened: no other one may have
	// it, or the anchor could not tell them apart.
	epoch, generation uint64

	// Scratch, so that a save does not allocate it. Only key is secret.
	key, random [KeySize]byte
	header      [blobHeaderSize]byte
}

// Slot derives the keys of one slot.
func (s *Store) Slot(id SlotID) (*Slot, error) {
	key, err := s.SlotKey(id)
	if err != nil {
		return nil, err
	}
	defer key.Clear()
	return NewSlot(id, key)
}

// SlotKey derives the key of one slot, to be handed to a worker that is to seal
// and open that slot's blobs and no other's. The caller clears it.
func (s *Store) SlotKey(id SlotID) (*Key, error) { return s.derive(labelSlot, string(id[:])) }

// NewSlot is Store.Slot for who has only the slot's key. It keeps no reference
// to key.
func NewSlot(id SlotID, key *Key) (*Slot, error) {
	if key == nil || key.b == ([KeySize]byte{}) {
		return nil, fmt.Errorf("slot %x without a key: %w", id, fs.ErrInvalid)
	}
	c := &Slot{id: id, prf: hmac.New(sha256.New, key.b[:]), rand: rand.Reader}
	copy(c.keyID[:], c.expand(&c.random, labelKeyID))
	return c, nil
}

// expand is the first block of HKDF-Expand (RFC 5869, 2.3) under the slot key,
// with the parts put together as info.
func (c *Slot) expand(dst *[KeySize]byte, info ...[]byte) []byte {
	c.prf.Reset()
	for _, p := range info {
		c.prf.Write(p)
	}
	c.prf.Write(firstBlock)
	return c.prf.Sum(dst[:0])
}

var firstBlock = []byte{1}

// Seal appends to dst the sealed form of plaintext, which must not overlap with
// dst's free capacity. If that has room for the plaintext and Overhead bytes,
// dst is not moved.
//
// A permanent state or a table must be newer than the newest that was sealed or opened. So
// after a save that failed, the next attempt takes another generation.
func (c *Slot) Seal(dst []byte, kind Kind, generation, epoch uint64, plaintext []byte) ([]byte, error) {
	h := blobHeader{label: Label{c.id, kind, generation, epoch}, length: uint32(len(plaintext)), keyID: c.keyID}
	switch {
	case c.prf == nil:
		return dst, fmt.Errorf("seal: %w", fs.ErrClosed)
	case !kind.known() || len(plaintext) > MaxPlaintext:
		return dst, fmt.Errorf("seal %d bytes as %s: %w", len(plaintext), kind, fs.ErrInvalid)
	case kind.positioned() && !newer(epoch, generation, c.epoch, c.generation):
		return dst, fmt.Errorf("seal %s after %d.%d: %w", h.label, c.epoch, c.generation, ErrGeneration)
	}
	if _, err := io.ReadFull(c.rand, c.random[:]); err != nil {
		return dst, fmt.Errorf("seal: random numbers: %w", err)
	}
	h.put(c.header[:])
	copy(c.header[blobSaltAt:], c.expand(&c.random, labelSalt, c.random[:], c.header[:], plaintext))
	aead, err := c.cipher()
	if err != nil {
		return dst, err
	}
	if kind.positioned() {
		c.epoch, c.generation = epoch, generation
	}
	dst = slices.Grow(dst, Overhead+len(plaintext))
	return aead.Seal(append(dst, c.header[:]...), nonce[:], plaintext, c.header[:]), nil
}

// Open appends to dst the plaintext of a blob of this slot, and says what it is.
// That it is authentic does not make it current: ask Anchor.Check. The blob must
// not overlap with dst's free capacity. On error dst is unchanged.
func (c *Slot) Open(dst []byte, kind Kind, sealed []byte) ([]byte, Label, error) {
	if c.prf == nil {
		return dst, Label{}, fmt.Errorf("open: %w", fs.ErrClosed)
	}
	h, err := parseBlob(sealed)
	if err != nil {
		return dst, Label{}, err
	}
	if h.label.Slot != c.id || h.label.Kind != kind {
		return dst, Label{}, fmt.Errorf("%s where %s state of slot %x is wanted: %w", h.label, kind, c.id, ErrForeign)
	}
	if h.keyID != c.keyID {
		return dst, Label{}, fmt.Errorf("%s is under key %x, this card has %x: %w", h.label, h.keyID, c.keyID, ErrWrongKey)
	}
	copy(c.header[:], sealed)
	aead, err := c.cipher()
	if err != nil {
		return dst, Label{}, err
	}
	out, err := aead.Open(dst, nonce[:], sealed[blobHeaderSize:], c.header[:])
	if err != nil {
		return dst, Label{}, fmt.Errorf("%s: %w", h.label, ErrDamaged)
	}
	if kind.positioned() && newer(h.label.Epoch, h.label.Generation, c.epoch, c.generation) {
		c.epoch, c.generation = h.label.Epoch, h.label.Generation
	}
	return out, h.label, nil
}

// cipher makes the cipher of the blob whose header is in c.header.
func (c *Slot) cipher() (cipher.AEAD, error) {
	defer clear(c.key[:])
	c.expand(&c.key, labelBlob, c.header[:])
	return newGCM(&c.key)
}

func newGCM(key *[KeySize]byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, fmt.Errorf("cipher: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("cipher: %w", err)
	}
	return aead, nil
}

// Close forgets the slot's key.
func (c *Slot) Close() {
	c.prf = nil
	clear(c.random[:])
}

// newer says whether one moment in a slot's life is after another.
func newer(epoch, generation, thanEpoch, thanGeneration uint64) bool {
	return epoch > thanEpoch || epoch == thanEpoch && generation > thanGeneration
}
