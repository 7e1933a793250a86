// SPDX-License-Identifier: Apache-2.0

package swtpmstate

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Causes of failure.
var (
	// ErrDamaged: the file is not whole, or not of this format.
	ErrDamaged = errors.New("not a whole state file of swtpm")
	// ErrKey: the state is encrypted and no key was given, or another one; or
	// the file was changed, which looks the same.
	ErrKey = errors.New("wrong key")
)

// MaxSize is the size of the largest file that is read, in bytes. libtpms has
// 176 KiB of NV memory.
const MaxSize = 1 << 20

const (
	headerSize = 10
	version    = 2

	flagEncrypted = 1 << 0
	flag256       = 1 << 3

	tagData      = 1
	tagEncrypted = 2
	tagHMAC      = 3
	tagVector    = 6
)

// header is the head of a file.
type header struct {
	flags uint16
	parts []byte
}

// KeySize says how long the key of a file is, in bytes; 0: it needs none.
func KeySize(file []byte) (int, error) {
	h, err := parseHeader(file)
	switch {
	case err != nil || h.flags&flagEncrypted == 0:
		return 0, err
	case h.flags&flag256 != 0:
		return 32, nil
	}
	return 16, nil
}

// Parse gives libtpms' permanent state in a file, which is secret. key is nil if
// the state is not encrypted.
func Parse(file, key []byte) ([]byte, error) {
	h, err := parseHeader(file)
	if err != nil {
		return nil, err
	}
	size, _ := KeySize(file)
	switch {
	case size == 0 && key != nil:
		return nil, fmt.Errorf("a key is given, but the state is not encrypted: %w", ErrKey)
	case size == 0:
		data, err := h.part(tagData)
		return bytes.Clone(data), err
	case key == nil:
		return nil, fmt.Errorf("the state is encrypted, by a key of %d bits: %w", 8*size, ErrKey)
	case len(key) != size:
		return nil, fmt.Errorf("the state is encrypted by a key of %d bits, this one has %d: %w", 8*size, 8*len(key), ErrKey)
	}
	return h.decrypt(key)
}

func parseHeader(b []byte) (header, error) {
	be := binary.BigEndian
	switch {
	case len(b) < headerSize || len(b) > MaxSize:
		return header{}, fmt.Errorf("file of %d bytes: %w", len(b), ErrDamaged)
	case b[0] != version || b[1] > version || be.Uint16(b[2:]) != headerSize:
		return header{}, fmt.Errorf("header of version %d, %d bytes: %w", b[0], be.Uint16(b[2:]), ErrDamaged)
	case uint64(be.Uint32(b[6:])) != uint64(len(b)):
		return header{}, fmt.Errorf("file of %d bytes says that it has %d: %w", len(b), be.Uint32(b[6:]), ErrDamaged)
	}
	h := header{flags: be.Uint16(b[4:]), parts: b[headerSize:]}
	if h.flags&^(flagEncrypted|flag256) != 0 {
		return header{}, fmt.Errorf("flags %#x: %w", h.flags, ErrDamaged)
	}
	return h, nil
}

// part finds a part.
func (h *header) part(tag uint16) ([]byte, error) {
	for b := h.parts; len(b) >= 6; {
		n := binary.BigEndian.Uint32(b[2:])
		if uint64(n) > uint64(len(b)-6) {
			break
		}
		if binary.BigEndian.Uint16(b) == tag {
			return b[6 : 6+n], nil
		}
		b = b[6+n:]
	}
	return nil, fmt.Errorf("no part %d: %w", tag, ErrDamaged)
}

// decrypt checks and decrypts the state.
func (h *header) decrypt(key []byte) ([]byte, error) {
	var parts [3][]byte
	for i, tag := range []uint16{tagEncrypted, tagHMAC, tagVector} {
		var err error
		if parts[i], err = h.part(tag); err != nil {
			return nil, err
		}
	}
	text, sum, iv := parts[0], parts[1], parts[2]
	if len(iv) != len(key) || len(text) == 0 || len(text)%len(key) != 0 {
		return nil, fmt.Errorf("%d bytes with a vector of %d: %w", len(text), len(iv), ErrDamaged)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write(text)
	mac.Write(iv)
	if !hmac.Equal(mac.Sum(nil), sum) {
		return nil, fmt.Errorf("the state is not authentic: the key is wrong, or the file was changed: %w", ErrKey)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	plain := make([]byte, len(text))
	cipher.NewCBCDecrypter(block, iv[:aes.BlockSize]).CryptBlocks(plain, text)
	return unpad(plain, len(key))
}

func unpad(b []byte, most int) ([]byte, error) {
	n := int(b[len(b)-1])
	pad := len(b) - n
	if n == 0 || n > most || slices.ContainsFunc(b[max(pad, 0):], func(x byte) bool { return int(x) != n }) {
		clear(b)
		return nil, fmt.Errorf("padding: %w", ErrDamaged)
	}
	return b[:pad], nil
}
