// SPDX-License-Identifier: Apache-2.0

package aik

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/internal/durable"
)

const (
	keyFile    = "aik.key"
	keyMagic   = "hwvtpm-a"
	keyVersion = 1
	nameSize   = 2 + sha256.Size // algorithm and digest
	keyHeader  = 8 + 4 + nameSize
	maxFile    = 64 << 10
)

func keyPath(dir string) string { return filepath.Join(dir, keyFile) }

// append writes the content of the key's file. Nothing of it is secret from who has
// another TPM.
//
//	0          8         12                  46
//	+----------+---------+-------------------+--------------+---------------+----------+
//	| magic    | version | storage key: name | TPM2B_PUBLIC | TPM2B_PRIVATE | SHA-256  |
//	+----------+---------+-------------------+--------------+---------------+----------+
//
// All is big-endian, as the TPM's parts are. The sum is of all that is before it.
func (k *key) append(dst []byte) []byte {
	start := len(dst)
	dst = binary.BigEndian.AppendUint32(append(dst, keyMagic...), keyVersion)
	dst = append(dst, k.parent...)
	dst = append(dst, tpm2.Marshal(k.public)...)
	dst = append(dst, tpm2.Marshal(k.private)...)
	sum := sha256.Sum256(dst[start:])
	return append(dst, sum[:]...)
}

func parseKey(b []byte) (*key, error) {
	if len(b) < keyHeader+sha256.Size || string(b[:len(keyMagic)]) != keyMagic {
		return nil, errors.New("not an attestation key's file")
	}
	if v := binary.BigEndian.Uint32(b[8:]); v != keyVersion {
		return nil, fmt.Errorf("version %d, this program knows %d", v, keyVersion)
	}
	body, tail := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	if sha256.Sum256(body) != [sha256.Size]byte(tail) {
		return nil, errors.New("its sum is another")
	}
	public, rest, err := cut2B(body[keyHeader:])
	if err != nil {
		return nil, err
	}
	private, rest, err := cut2B(rest)
	if err != nil {
		return nil, err
	}
	if len(rest) != 0 {
		return nil, errors.New("something is after its end")
	}
	return newKey(bytes.Clone(body[12:keyHeader]), tpm2.BytesAs2B[tpm2.TPMTPublic](public), tpm2.TPM2BPrivate{Buffer: private})
}

// cut2B takes a structure with its size from the front of b.
func cut2B(b []byte) (content, rest []byte, err error) {
	if len(b) < 2 || len(b)-2 < int(binary.BigEndian.Uint16(b)) {
		return nil, nil, errors.New("it is cut short")
	}
	n := 2 + int(binary.BigEndian.Uint16(b))
	return bytes.Clone(b[2:n]), b[n:], nil
}

func readKey(dir string) (*key, error) {
	b, err := readFile(keyPath(dir))
	if err != nil {
		return nil, err
	}
	k, err := parseKey(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, keyPath(dir), err)
	}
	return k, nil
}

// readFile reads a file of at most maxFile bytes.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("%w: %s has more than %d bytes", ErrDamaged, path, maxFile)
	}
	return b, nil
}

// writeKey makes the key's file, whole or not at all. There is none before.
func writeKey(dir string, k *key) error { return durable.Replace(keyPath(dir), k.append(nil), 0o600) }
