// SPDX-License-Identifier: Apache-2.0

package sealed

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Version history of sealed blobs:
//
//	1  first
const (
	blobVersion    = 1 // written
	blobMinVersion = 1 // oldest reader that understands what is written
)

const (
	blobMagic      = "hwvtpm-b"
	blobHeaderSize = 112
	blobSaltAt     = 64
	tagSize        = 16

	// Overhead is by how many bytes a blob is longer than its plaintext.
	Overhead = blobHeaderSize + tagSize

	// MaxPlaintext is the size of the largest plaintext, in bytes.
	MaxPlaintext = 2 << 20
)

// SlotID names a slot for life. The zero id is the card's own.
type SlotID [16]byte

// Kind is what a blob holds.
type Kind uint32

// The kinds.
const (
	KindPermanent Kind = 1 // of a slot, survives the host
	KindVolatile  Kind = 2 // of a slot, of one run
	KindTable     Kind = 3 // of the card: what slots there are
	KindIdentity  Kind = 4 // of the card: its signing key

	// The two parts of a state that has left the card, to be loaded again. Their
	// kinds are their own, so that they are never taken for what the card keeps.
	KindMovedPermanent Kind = 5
	KindMovedVolatile  Kind = 6
)

// String implements fmt.Stringer.
func (k Kind) String() string {
	switch k {
	case KindPermanent:
		return "permanent"
	case KindVolatile:
		return "volatile"
	case KindTable:
		return "table"
	case KindIdentity:
		return "identity"
	case KindMovedPermanent:
		return "moved permanent"
	case KindMovedVolatile:
		return "moved volatile"
	}
	return fmt.Sprintf("kind %d", uint32(k))
}

func (k Kind) known() bool { return k >= KindPermanent && k <= KindMovedVolatile }

// positioned says whether blobs of the kind have positions in the anchor. A slot
// has one position, so it has one kind of these: a table is the card's, whose id
// is no slot's.
func (k Kind) positioned() bool { return k == KindPermanent || k == KindTable }

// Label says what a blob is. It is authentic, and not secret.
type Label struct {
	Slot       SlotID
	Kind       Kind
	Generation uint64 // grows with each save of a slot
	Epoch      uint64 // of the anchor when it was saved: see Anchor.Epoch
}

// String implements fmt.Stringer.
func (l Label) String() string {
	return fmt.Sprintf("%s state %d.%d of slot %x", l.Kind, l.Epoch, l.Generation, l.Slot)
}

// ParseLabel reads what a blob says it is, without a key: nothing of it is
// authentic. It serves those who carry blobs and cannot open them.
func ParseLabel(blob []byte) (Label, error) {
	h, err := parseBlob(blob)
	return h.label, err
}

// Fingerprint is a blob's name: no two blobs that differ have the same. It is
// authentic if the blob is.
type Fingerprint [32]byte

// FingerprintOf reads the fingerprint of a blob. It is the salt, which is a MAC of
// all that was sealed.
func FingerprintOf(blob []byte) (Fingerprint, error) {
	h, err := parseBlob(blob)
	return h.salt, err
}

// blobHeader is the head of a sealed blob.
//
//	 0                         8            12           16
//	+-------------------------+------------+------------+
//	| magic "hwvtpm-b"        | version    | min version|
//	+-------------------------+------------+------------+
//	| slot id                                           | 16
//	+-------------------------+-------------------------+
//	| generation              | epoch                   | 32
//	+------------+------------+-------------------------+
//	| kind       | length     | reserved (8)            | 48
//	+------------+------------+-------------------------+
//	| salt (32)                                         | 64
//	|                                                   | 80
//	+---------------------------------------------------+
//	| slot key's id (16)                                | 96
//	+---------------------------------------------------+
//	| ciphertext (length bytes) ...                     | 112
//	+---------------------------------------------------+
//	| GCM tag (16)                                      |
//	+---------------------------------------------------+
//
// Little-endian. The whole header is associated data, and all of it goes into
// the blob's key as well.
type blobHeader struct {
	label  Label
	length uint32
	salt   [32]byte
	keyID  KeyID
}

// put writes the header to b, which has blobHeaderSize bytes.
func (h *blobHeader) put(b []byte) {
	le := binary.LittleEndian
	clear(b)
	copy(b[0:], blobMagic)
	le.PutUint32(b[8:], blobVersion)
	le.PutUint32(b[12:], blobMinVersion)
	copy(b[16:], h.label.Slot[:])
	le.PutUint64(b[32:], h.label.Generation)
	le.PutUint64(b[40:], h.label.Epoch)
	le.PutUint32(b[48:], uint32(h.label.Kind))
	le.PutUint32(b[52:], h.length)
	copy(b[blobSaltAt:], h.salt[:])
	copy(b[96:], h.keyID[:])
}

// parseBlob reads a blob's header, of which nothing is authentic yet.
func parseBlob(b []byte) (blobHeader, error) {
	le := binary.LittleEndian
	if len(b) < Overhead || len(b) > Overhead+MaxPlaintext {
		return blobHeader{}, fmt.Errorf("blob of %d bytes: %w", len(b), ErrDamaged)
	}
	if !bytes.HasPrefix(b, []byte(blobMagic)) {
		return blobHeader{}, fmt.Errorf("not a sealed blob: %w", ErrDamaged)
	}
	if v := le.Uint32(b[12:]); v > blobVersion {
		return blobHeader{}, fmt.Errorf("blob needs version %d, this program has %d: %w", v, blobVersion, ErrVersion)
	}
	h := blobHeader{
		label: Label{
			Slot:       SlotID(b[16:32]),
			Generation: le.Uint64(b[32:]),
			Epoch:      le.Uint64(b[40:]),
			Kind:       Kind(le.Uint32(b[48:])),
		},
		length: le.Uint32(b[52:]),
		salt:   [32]byte(b[blobSaltAt:96]),
		keyID:  KeyID(b[96:112]),
	}
	if uint64(h.length) != uint64(len(b)-Overhead) || !h.label.Kind.known() || le.Uint64(b[56:]) != 0 {
		return blobHeader{}, fmt.Errorf("blob header is inconsistent: %w", ErrDamaged)
	}
	return h, nil
}
