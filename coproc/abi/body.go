// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// Limits of endorsement keys in a statement.
const (
	MaxEKs    = 8
	MaxEKName = 2 + 64 // bytes of a TPM Name: algorithm and digest

	ekBodyHeader  = 56
	eraseBodySize = 80
)

// EK is an endorsement key of a slot.
//
//	 0                4        6
//	+----------------+--------+-----------+
//	| handle         | length | Name ...  |
//	+----------------+--------+-----------+
type EK struct {
	Handle uint32 // where it is persistent
	Name   []byte // TPM Name: nameAlg and digest of its public area (Part 1, "Names")
}

func appendEKs(dst []byte, eks []EK) []byte {
	for _, ek := range eks {
		dst = binary.LittleEndian.AppendUint32(dst, ek.Handle)
		dst = binary.LittleEndian.AppendUint16(dst, uint16(len(ek.Name)))
		dst = append(dst, ek.Name...)
	}
	return dst
}

// parseEKs reads n keys that are all of b.
func parseEKs(b []byte, n int) ([]EK, error) {
	var eks []EK
	for range n {
		if len(b) < 6 {
			return nil, fmt.Errorf("endorsement key: %w", ErrMalformed)
		}
		size := int(binary.LittleEndian.Uint16(b[4:]))
		if size > MaxEKName || len(b) < 6+size {
			return nil, fmt.Errorf("endorsement key: name of %d bytes: %w", size, ErrMalformed)
		}
		eks = append(eks, EK{Handle: binary.LittleEndian.Uint32(b), Name: b[6 : 6+size : 6+size]})
		b = b[6+size:]
	}
	if len(b) != 0 {
		return nil, fmt.Errorf("endorsement keys: %d bytes too many: %w", len(b), ErrMalformed)
	}
	return eks, nil
}

// EKDigest is SlotInfo.EKNames: SHA-256 over the keys as they are in EKBody, or
// zero if there are none.
func EKDigest(eks []EK) [32]byte {
	if len(eks) == 0 {
		return [32]byte{}
	}
	return sha256.Sum256(appendEKs(nil, eks))
}

// EKBody is the body of StatementEK: these endorsement keys are those of the
// slot that the statement names, and opening that slot takes this access key.
//
//	 0                         4                         8
//	+---------------------------------------------------+
//	| generation of the durable state                   | 0
//	+---------------------------------------------------+
//	| epoch of the durable state                        | 8
//	+---------------------------------------------------+
//	| access key: Ed25519 public key (32 bytes)         | 16
//	:                                                   :
//	+-------------------------+-------------------------+
//	| number of keys          | reserved                | 48
//	+-------------------------+-------------------------+
//	| keys ...                                          | 56
type EKBody struct {
	Generation, Epoch uint64
	AccessKey         [32]byte
	EKs               []EK // at most MaxEKs; parsed: names alias the message
}

// AppendEKBody appends e in wire form to dst.
func AppendEKBody(dst []byte, e *EKBody) []byte {
	var b [ekBodyHeader]byte
	le := binary.LittleEndian
	le.PutUint64(b[0:], e.Generation)
	le.PutUint64(b[8:], e.Epoch)
	copy(b[16:48], e.AccessKey[:])
	le.PutUint32(b[48:], uint32(len(e.EKs)))
	return appendEKs(append(dst, b[:]...), e.EKs)
}

// ParseEKBody reads an EKBody.
func ParseEKBody(b []byte) (EKBody, error) {
	if len(b) < ekBodyHeader || orBytes(b[52:56]) != 0 {
		return EKBody{}, fmt.Errorf("EK body: %w", ErrMalformed)
	}
	le := binary.LittleEndian
	n := le.Uint32(b[48:])
	if n > MaxEKs {
		return EKBody{}, fmt.Errorf("EK body: %d keys: %w", n, ErrMalformed)
	}
	eks, err := parseEKs(b[ekBodyHeader:], int(n))
	if err != nil {
		return EKBody{}, fmt.Errorf("EK body: %w", err)
	}
	return EKBody{Generation: le.Uint64(b[0:]), Epoch: le.Uint64(b[8:]), AccessKey: [32]byte(b[16:48]), EKs: eks}, nil
}

// EraseBody is the body of StatementErase: the slot that the statement names
// is gone, and the card accepts no state any more that was ever saved of it.
//
//	 0                                                   8
//	+---------------------------------------------------+
//	| generation of the last durable state              | 0
//	+---------------------------------------------------+
//	| epoch of the last durable state                   | 8
//	+---------------------------------------------------+
//	| name (64 bytes, padded with zeros)                | 16
//	:                                                   :
//	+---------------------------------------------------+
type EraseBody struct {
	Generation, Epoch uint64
	Name              string
}

// AppendEraseBody appends e in wire form to dst.
func AppendEraseBody(dst []byte, e *EraseBody) []byte {
	var b [eraseBodySize]byte
	binary.LittleEndian.PutUint64(b[0:], e.Generation)
	binary.LittleEndian.PutUint64(b[8:], e.Epoch)
	putName(b[16:], e.Name)
	return append(dst, b[:]...)
}

// ParseEraseBody reads an EraseBody.
func ParseEraseBody(b []byte) (EraseBody, error) {
	if len(b) != eraseBodySize {
		return EraseBody{}, fmt.Errorf("erase body of %d bytes: %w", len(b), ErrMalformed)
	}
	name, err := parseName(b[16:])
	if err != nil {
		return EraseBody{}, fmt.Errorf("erase body: %w", err)
	}
	return EraseBody{
		Generation: binary.LittleEndian.Uint64(b[0:]),
		Epoch:      binary.LittleEndian.Uint64(b[8:]),
		Name:       name,
	}, nil
}
