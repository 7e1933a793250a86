// SPDX-License-Identifier: Apache-2.0

package accesskey

import (
	"bytes"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"

	"hwvtpm/coproc/abi"
)

// Causes of this package's errors; test for them with errors.Is.
var (
	// ErrFormat: the file is not an Ed25519 key in PEM.
	ErrFormat = errors.New("not an Ed25519 key in PEM")
	// ErrUnsafe: the file could be read or replaced by others.
	ErrUnsafe = errors.New("others could read or replace the key")
)

// Types of PEM blocks.
const (
	privateType = "PRIVATE KEY"
	publicType  = "PUBLIC KEY"
)

// The DER of both kinds of keys before their 32 bytes (RFC 8410, 4 and 7). There
// is one such encoding, so no ASN.1 is needed, nor what it would link into the
// process beside each virtual machine.
const (
	privatePrefix = "\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20"
	publicPrefix  = "\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00"
)

// Marshal gives a private key as PEM.
func Marshal(key ed25519.PrivateKey) []byte {
	der := append([]byte(privatePrefix), key.Seed()...)
	defer clear(der)
	return pem.EncodeToMemory(&pem.Block{Type: privateType, Bytes: der})
}

// MarshalPublic gives a public key as PEM.
func MarshalPublic(key ed25519.PublicKey) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: publicType, Bytes: append([]byte(publicPrefix), key...)})
}

// Parse reads a private key.
func Parse(text []byte) (ed25519.PrivateKey, error) {
	seed, err := block(text, privateType, privatePrefix)
	if err != nil {
		return nil, err
	}
	defer clear(seed)
	return ed25519.NewKeyFromSeed(seed), nil
}

// ParsePublic reads a public key, or the public half of a private one.
func ParsePublic(text []byte) (ed25519.PublicKey, error) {
	if key, err := block(text, publicType, publicPrefix); err == nil {
		return ed25519.PublicKey(key), nil
	}
	key, err := Parse(text)
	if err != nil {
		return nil, err
	}
	return key.Public().(ed25519.PublicKey), nil
}

// Prove answers a card's challenge: it opens the slot whose access key this is,
// on that card, once.
func Prove(key ed25519.PrivateKey, c abi.Challenge) abi.Proof {
	return abi.Proof(ed25519.Sign(key, abi.OpenMessage(c.Serial, c.ID, c.Nonce)))
}

// block reads the one PEM block of text and gives the 32 bytes after prefix.
func block(text []byte, kind, prefix string) ([]byte, error) {
	b, rest := pem.Decode(text)
	if b == nil {
		return nil, fmt.Errorf("no PEM block: %w", ErrFormat)
	}
	if len(bytes.TrimSpace(rest)) != 0 {
		return nil, fmt.Errorf("more than one PEM block: %w", ErrFormat)
	}
	if b.Type != kind || len(b.Headers) != 0 {
		return nil, fmt.Errorf("PEM block %q: %w", b.Type, ErrFormat)
	}
	key, ok := bytes.CutPrefix(b.Bytes, []byte(prefix))
	if !ok || len(key) != ed25519.SeedSize {
		return nil, fmt.Errorf("key of another kind: %w", ErrFormat)
	}
	return key, nil
}
