// SPDX-License-Identifier: Apache-2.0

package sealed

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"sync"
)

// KeySize is the size of all keys here, in bytes.
const KeySize = 32

// Key is a secret of KeySize bytes. It prints as a fixed text whatever the verb.
// The zero Key is no key.
type Key struct{ b [KeySize]byte }

// NewKey makes a random key.
func NewKey() *Key {
	k := new(Key)
	rand.Read(k.b[:])
	return k
}

// KeyFrom makes a key of KeySize bytes and clears them.
func KeyFrom(b []byte) (*Key, error) {
	defer clear(b)
	if len(b) != KeySize {
		return nil, fmt.Errorf("key of %d bytes, want %d: %w", len(b), KeySize, ErrDamaged)
	}
	return &Key{[KeySize]byte(b)}, nil
}

// Bytes gives the secret itself, which the key goes on to own.
func (k *Key) Bytes() []byte { return k.b[:] }

// Clear overwrites the key.
func (k *Key) Clear() { clear(k.b[:]) }

// Format implements fmt.Formatter, so that no verb shows the secret.
func (k Key) Format(f fmt.State, _ rune) { fmt.Fprint(f, "secret key") }

// KeySource is where a card has its storage key from.
type KeySource interface {
	// Key gets the card storage key. The caller clears it. A source never
	// makes a new key in place of one that it cannot get.
	Key() (*Key, error)

	// String says for operators what protects the key.
	String() string
}

// Labels separate the keys that are derived. Each ends where its arguments, all
// of fixed size but a last one, begin.
var (
	// of the card storage key
	labelCard = []byte("hwvtpm sealed 1 card\x00")
	// of the card root
	labelSlot   = []byte("hwvtpm sealed 1 slot\x00")
	labelSecret = []byte("hwvtpm sealed 1 secret\x00")
	labelAnchor = []byte("hwvtpm sealed 1 anchor\x00")
	// of a slot key
	labelSalt    = []byte("hwvtpm sealed 1 salt\x00")
	labelBlob    = []byte("hwvtpm sealed 1 blob\x00")
	labelJournal = []byte("hwvtpm sealed 1 journal\x00")
	labelEntry   = []byte("hwvtpm sealed 1 entry\x00")
	// of a slot key and the anchor's key
	labelKeyID = []byte("hwvtpm sealed 1 key id\x00")
)

// KeyID names a key without telling it. It tells a wrong key from damage.
type KeyID [16]byte

// Store has the root of a card's keys. It is safe for concurrent use.
type Store struct {
	mu   sync.Mutex
	root *Key // nil when closed
	from string
}

// OpenStore gets the card storage key from src and keeps only what it derives.
func OpenStore(src KeySource) (*Store, error) {
	csk, err := src.Key()
	if err != nil {
		return nil, fmt.Errorf("card storage key: %w", err)
	}
	defer csk.Clear()
	prk, err := hkdf.Extract(sha256.New, csk.b[:], labelCard)
	if err != nil {
		return nil, fmt.Errorf("card root key: %w", err)
	}
	root, err := KeyFrom(prk)
	if err != nil {
		return nil, err
	}
	return &Store{root: root, from: src.String()}, nil
}

// String says where the store's key is from.
func (s *Store) String() string { return s.from }

// Close forgets the keys. Slots that are open stay usable.
func (s *Store) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.root != nil {
		s.root.Clear()
		s.root = nil
	}
}

// Secret derives a secret of the card for a purpose of the caller, such as the
// authorization value of a counter.
func (s *Store) Secret(purpose string) (*Key, error) { return s.derive(labelSecret, purpose) }

func (s *Store) derive(label []byte, arg string) (*Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.root == nil {
		return nil, fmt.Errorf("sealed store: %w", fs.ErrClosed)
	}
	b, err := hkdf.Expand(sha256.New, s.root.b[:], string(label)+arg, KeySize)
	if err != nil {
		return nil, fmt.Errorf("derive key: %w", err)
	}
	return KeyFrom(b)
}
