// SPDX-License-Identifier: Apache-2.0

package sealed

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
)

const (
	keyFileMagic   = "hwvtpm-k"
	keyFileVersion = 1
	keyFileSize    = 16 + KeySize + sha256.Size
)

// KeyFile is a card storage key in a file of mode 0600.
//
//	 0                         8            12           16
//	+-------------------------+------------+------------+
//	| magic "hwvtpm-k"        | version    | reserved   |
//	+-------------------------+------------+------------+
//	| key (32)                                          | 16
//	|                                                   | 32
//	+---------------------------------------------------+
//	| SHA-256 of all before it (32)                     | 48
//	|                                                   | 64
//	+---------------------------------------------------+
//
// Little-endian.
type KeyFile struct{ file *File }

// CreateKeyFile writes key to a new file. It never replaces one: the error is
// fs.ErrExist then.
func CreateKeyFile(path string, key *Key) (*KeyFile, error) {
	k := &KeyFile{NewFile(path)}
	return k, k.create(key)
}

// OpenKeyFile names a key file, which is read when Key is called.
func OpenKeyFile(path string) *KeyFile { return &KeyFile{NewFile(path)} }

func (k *KeyFile) create(key *Key) error {
	b := make([]byte, 16, keyFileSize)
	defer clear(b[:keyFileSize])
	copy(b, keyFileMagic)
	binary.LittleEndian.PutUint32(b[8:], keyFileVersion)
	b = append(b, key.b[:]...)
	sum := sha256.Sum256(b)
	if err := k.file.Create(append(b, sum[:]...)); err != nil {
		return fmt.Errorf("key file: %w", err)
	}
	return nil
}

// Key implements KeySource.
func (k *KeyFile) Key() (*Key, error) {
	b, err := k.file.Read()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("key file: %w; without it nothing can be unsealed: restore it from a backup", err)
	}
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	defer clear(b)
	return parseKeyFile(b)
}

func parseKeyFile(b []byte) (*Key, error) {
	if len(b) < 16 || !bytes.HasPrefix(b, []byte(keyFileMagic)) {
		return nil, fmt.Errorf("not a key file: %w", ErrDamaged)
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != keyFileVersion {
		return nil, fmt.Errorf("key file has version %d, this program knows %d: %w", v, keyFileVersion, ErrVersion)
	}
	if len(b) != keyFileSize || sha256.Sum256(b[:16+KeySize]) != [32]byte(b[16+KeySize:]) {
		return nil, fmt.Errorf("key file: %w: restore it from a backup", ErrDamaged)
	}
	return &Key{[KeySize]byte(b[16:])}, nil
}

// String implements KeySource.
func (k *KeyFile) String() string {
	return "key file: whoever reads it can unseal; no rollback protection"
}
