// SPDX-License-Identifier: Apache-2.0

package sealed

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
)

// CounterID names a counter.
type CounterID [16]byte

// Counter is a monotonic counter. An Anchor calls it from one goroutine at a
// time, and expects that nothing else increments it.
type Counter interface {
	// ID names the counter: one that took its place has another, or starts
	// where this one ended or later.
	ID() (CounterID, error)

	// Read gives the value.
	Read() (uint64, error)

	// Increment adds one. After an error it may or may not have done so.
	Increment() error

	// String says for operators what the counter protects from.
	String() string
}

const (
	counterMagic   = "hwvtpm-c"
	counterVersion = 1
	counterSize    = 40 + sha256.Size
)

// FileCounter is a counter in a file. Who can set the store back can set it back
// too: it is for tests, and for cards that have nothing better.
//
//	 0                         8            12           16
//	+-------------------------+------------+------------+
//	| magic "hwvtpm-c"        | version    | reserved   |
//	+-------------------------+------------+------------+
//	| id (random)                                       | 16
//	+-------------------------+-------------------------+
//	| value                   | SHA-256 of all before   | 32
//	+-------------------------+                         |
//	| it (32)                                           | 48
//	|                         +-------------------------+
//	|                         |                           64
//	+-------------------------+
//
// Little-endian.
type FileCounter struct{ file *File }

// CreateFileCounter makes a counter in a new file, at 0.
func CreateFileCounter(path string) (*FileCounter, error) {
	c := OpenFileCounter(path)
	var id CounterID
	rand.Read(id[:])
	if err := c.file.Create(appendCounter(id, 0)); err != nil {
		return nil, fmt.Errorf("file counter: %w", err)
	}
	return c, nil
}

// OpenFileCounter names a counter's file.
func OpenFileCounter(path string) *FileCounter { return &FileCounter{NewFile(path)} }

func appendCounter(id CounterID, v uint64) []byte {
	b := make([]byte, 16, counterSize)
	copy(b, counterMagic)
	binary.LittleEndian.PutUint32(b[8:], counterVersion)
	b = binary.LittleEndian.AppendUint64(append(b, id[:]...), v)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

func (c *FileCounter) read() (CounterID, uint64, error) {
	b, err := c.file.Read()
	if errors.Is(err, fs.ErrNotExist) {
		return CounterID{}, 0, fmt.Errorf("file counter: %w: %w", err, ErrCounter)
	}
	if err != nil {
		return CounterID{}, 0, fmt.Errorf("file counter: %w", err)
	}
	return parseCounter(b)
}

func parseCounter(b []byte) (CounterID, uint64, error) {
	const body = counterSize - sha256.Size
	if len(b) < 16 || !bytes.HasPrefix(b, []byte(counterMagic)) {
		return CounterID{}, 0, fmt.Errorf("not a file counter: %w", ErrDamaged)
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != counterVersion {
		return CounterID{}, 0, fmt.Errorf("file counter has version %d, this program knows %d: %w", v, counterVersion, ErrVersion)
	}
	if len(b) != counterSize || sha256.Sum256(b[:body]) != [32]byte(b[body:]) {
		return CounterID{}, 0, fmt.Errorf("file counter: %w", ErrDamaged)
	}
	return CounterID(b[16:]), binary.LittleEndian.Uint64(b[32:]), nil
}

// ID implements Counter.
func (c *FileCounter) ID() (CounterID, error) {
	id, _, err := c.read()
	return id, err
}

// Read implements Counter.
func (c *FileCounter) Read() (uint64, error) {
	_, v, err := c.read()
	return v, err
}

// Increment implements Counter.
func (c *FileCounter) Increment() error {
	id, v, err := c.read()
	if err == nil {
		err = c.file.Replace(appendCounter(id, v+1))
	}
	return err
}

// String implements Counter.
func (c *FileCounter) String() string {
	return "file counter: no rollback protection: whoever writes it can set everything back"
}
