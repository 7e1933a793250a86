// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// StatementType tells what the body of a Statement is, and with it what the
// card vouches for.
type StatementType uint16

// Types of statements. 2 is kept for export.
const (
	StatementEK     StatementType = 1 // EKBody: the endorsement keys of a slot
	StatementErase  StatementType = 3 // EraseBody: a slot was destroyed
	StatementHealth StatementType = 4 // CardHealth: the card, its firmware and its store
)

// Sizes of structures of statements, in bytes.
const (
	StatementRequestSize = 40
	StatementHeaderSize  = 96
	MaxStatementBody     = 2048
	MaxSignature         = 128 // an ECDSA P-256 signature has at most 72

	statementMagic   = "hwvtpm-statement"
	statementVersion = 1
)

// ErrSignature is the cause of VerifyStatement's error for a statement that is
// well formed and not signed with the key.
var ErrSignature = errors.New("signature is wrong")

// StatementRequest is the payload of OpStatement.
//
//	 0           2           4                         8
//	+-----------+-----------+-------------------------+
//	| type      | reserved                            | 0
//	+-----------+-------------------------------------+
//	| nonce (32 bytes)                                | 8
//	:                                                 :
//	+-------------------------------------------------+
type StatementRequest struct {
	Type  StatementType
	Nonce [32]byte // comes back in the statement, which is new then
}

// AppendStatementRequest appends r in wire form to dst.
func AppendStatementRequest(dst []byte, r *StatementRequest) []byte {
	var b [StatementRequestSize]byte
	binary.LittleEndian.PutUint16(b[0:], uint16(r.Type))
	copy(b[8:], r.Nonce[:])
	return append(dst, b[:]...)
}

// ParseStatementRequest reads a StatementRequest. Whether the type is known is
// the card's affair.
func ParseStatementRequest(b []byte) (StatementRequest, error) {
	if len(b) != StatementRequestSize || orBytes(b[2:8]) != 0 {
		return StatementRequest{}, fmt.Errorf("statement request: %w", ErrMalformed)
	}
	return StatementRequest{Type: StatementType(binary.LittleEndian.Uint16(b)), Nonce: [32]byte(b[8:])}, nil
}

// Statement is something that the card vouches for with its own key. The card
// writes all of it but the nonce, so nobody can have bytes of their choice
// signed, and the magic keeps it apart from whatever else may be signed.
//
//	 0           2           4                         8
//	+-----------+-----------+-------------------------+
//	| "hwvtpm-statement" (16 bytes)                   | 0
//	|                                                 | 8
//	+-----------+-----------+-------------------------+
//	| version 1 | type      | length of the body      | 16
//	+-----------+-----------+-------------------------+
//	| time, seconds since 1970                        | 24
//	+-------------------------------------------------+
//	| serial number of the card (16 bytes)            | 32
//	+-------------------------------------------------+
//	| slot id (16 bytes), zero: the card itself       | 48
//	+-------------------------------------------------+
//	| nonce (32 bytes)                                | 64
//	+-------------------------------------------------+
//	| body ...                                        | 96
//	+-----------+-------------------------------------+
//	| length    | ECDSA signature, ASN.1, over the    | 96 + body
//	|           | SHA-256 of all before the length ...|
//	+-----------+-------------------------------------+
type Statement struct {
	Type   StatementType
	Time   int64 // seconds since 1970, by the card's clock
	Serial [16]byte
	Slot   [16]byte
	Nonce  [32]byte
	Body   []byte // parsed: aliases the message
}

// AppendStatement appends what is signed of s to dst. The caller signs it, and
// appends the signature with AppendSignature.
func AppendStatement(dst []byte, s *Statement) []byte {
	var b [StatementHeaderSize]byte
	le := binary.LittleEndian
	copy(b[0:16], statementMagic)
	le.PutUint16(b[16:], statementVersion)
	le.PutUint16(b[18:], uint16(s.Type))
	le.PutUint32(b[20:], uint32(len(s.Body)))
	le.PutUint64(b[24:], uint64(s.Time))
	copy(b[32:48], s.Serial[:])
	copy(b[48:64], s.Slot[:])
	copy(b[64:96], s.Nonce[:])
	return append(append(dst, b[:]...), s.Body...)
}

// AppendSignature appends a signature to the statement that is in dst.
func AppendSignature(dst, sig []byte) []byte {
	return append(binary.LittleEndian.AppendUint16(dst, uint16(len(sig))), sig...)
}

// ParseStatement reads a signed statement and checks its form, not the
// signature. signed is what sig has to be a signature of; both alias b.
func ParseStatement(b []byte) (s Statement, signed, sig []byte, err error) {
	le := binary.LittleEndian
	if len(b) < StatementHeaderSize+2 || !bytes.HasPrefix(b, []byte(statementMagic)) ||
		le.Uint16(b[16:]) != statementVersion {
		return Statement{}, nil, nil, fmt.Errorf("statement: %w", ErrMalformed)
	}
	n := le.Uint32(b[20:])
	if n > MaxStatementBody || uint64(len(b)) < uint64(StatementHeaderSize)+uint64(n)+2 {
		return Statement{}, nil, nil, fmt.Errorf("statement: body of %d bytes: %w", n, ErrMalformed)
	}
	signed, rest := b[:StatementHeaderSize+n], b[StatementHeaderSize+n:]
	sig = rest[2:]
	if int(le.Uint16(rest)) != len(sig) || len(sig) > MaxSignature {
		return Statement{}, nil, nil, fmt.Errorf("statement: signature of %d bytes: %w", len(sig), ErrMalformed)
	}
	s = Statement{
		Type:   StatementType(le.Uint16(b[18:])),
		Time:   int64(le.Uint64(b[24:])),
		Serial: [16]byte(b[32:48]),
		Slot:   [16]byte(b[48:64]),
		Nonce:  [32]byte(b[64:96]),
		Body:   signed[StatementHeaderSize:],
	}
	return s, signed, sig, nil
}

// VerifyStatement reads a statement that is signed with the card's key. The
// caller still has to compare nonce, type and slot with what was asked for.
func VerifyStatement(pub *ecdsa.PublicKey, b []byte) (Statement, error) {
	s, signed, sig, err := ParseStatement(b)
	if err != nil {
		return Statement{}, err
	}
	digest := sha256.Sum256(signed)
	if !ecdsa.VerifyASN1(pub, digest[:], sig) {
		return Statement{}, fmt.Errorf("statement: %w", ErrSignature)
	}
	return s, nil
}

// spkiP256 is all of the DER of a SubjectPublicKeyInfo of a P-256 key (RFC 5480)
// before its point, which is uncompressed. There is one such encoding, so no
// ASN.1 is needed, nor what it would link into each program.
const spkiP256 = "\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01" +
	"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00"

// ParseCardKey reads the answer to OpCardKey, and gives the serial number of
// the card that has this key.
func ParseCardKey(der []byte) (*ecdsa.PublicKey, [16]byte, error) {
	point, ok := bytes.CutPrefix(der, []byte(spkiP256))
	if !ok {
		return nil, [16]byte{}, fmt.Errorf("card key is not an ECDSA P-256 key: %w", ErrMalformed)
	}
	pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return nil, [16]byte{}, fmt.Errorf("card key: %w: %w", ErrMalformed, err)
	}
	return pub, SerialOf(der), nil
}

// SerialOf gives the serial number of the card with this key, which binds one
// to the other: the first half of the key's SHA-256.
func SerialOf(der []byte) [16]byte {
	digest := sha256.Sum256(der)
	return [16]byte(digest[:16])
}
