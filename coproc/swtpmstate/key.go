// SPDX-License-Identifier: Apache-2.0

package swtpmstate

import (
	"bytes"
	"crypto/pbkdf2"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
)

// ParseHexKey reads a key as swtpm's format=hex: digits, with 0x before them or
// not, up to the first white space.
func ParseHexKey(text []byte) ([]byte, error) {
	word := text
	if i := bytes.IndexAny(text, " \t\r\n\v\f"); i >= 0 {
		word = text[:i]
	}
	key, err := hex.DecodeString(string(bytes.TrimPrefix(word, []byte("0x"))))
	if err != nil {
		return nil, fmt.Errorf("the key is not in hex digits: %w", ErrKey)
	}
	return ParseBinaryKey(key)
}

// ParseBinaryKey checks a key as swtpm's format=binary.
func ParseBinaryKey(key []byte) ([]byte, error) {
	if len(key) != 16 && len(key) != 32 {
		return nil, fmt.Errorf("the key has %d bytes, want 16 or 32: %w", len(key), ErrKey)
	}
	return key, nil
}

// PasswordKey makes a key of a password as swtpm's kdf=pbkdf2, its default.
func PasswordKey(password []byte, size int) ([]byte, error) {
	const salt, rounds = "swtpm", 1000
	return pbkdf2.Key(sha512.New, string(password), []byte(salt), rounds, size)
}

// HashedKey makes a key of a password as swtpm's kdf=sha512, which was all that
// it had before 0.2.
func HashedKey(password []byte, size int) []byte {
	sum := sha512.Sum512(password)
	return sum[:size]
}
