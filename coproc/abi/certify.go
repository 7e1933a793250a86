// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// Opcodes of certificates. All are for administrators.
const (
	// OpCardCertify gives the card certificates of its own key. Payload: X.509,
	// DER, one after the other: the coprocessor AIK's, and those of its issuers,
	// without a root -> no payload. They replace the ones before. Endorsement
	// keys are certified from then on.
	OpCardCertify Opcode = 0x56
	// OpSlotCertify certifies the endorsement keys of a slot that is not open,
	// and writes the certificates into its NV memory in place of those that the
	// card wrote before. slot; no payload -> no payload; "in use" while it is open
	// or a run of its machine may go on.
	OpSlotCertify Opcode = 0x57
	// OpEKCertificate gives one endorsement key of a slot and its certificate.
	// slot; payload EK handle (4) -> EKCertificate; "no such slot" if the slot has
	// no such key.
	OpEKCertificate Opcode = 0x58
)

// NV indices of certificates (TCG EK Credential Profile 2.5, 2.2.1.4 and 2.2.1.5).
const (
	IndexRSAEK  uint32 = 0x01c00002 // certificate of KeyRSAEK
	IndexP256EK uint32 = 0x01c0000a // certificate of KeyP256EK
	IndexP384EK uint32 = 0x01c00016 // certificate of KeyP384EK

	// IndexEKChain is the first index of the issuers' certificates. They are
	// one after the other, and go on in the next index where one is full.
	IndexEKChain uint32 = 0x01c00100
	// IndexEKChainEnd is behind the last index of the issuers' certificates.
	IndexEKChainEnd uint32 = 0x01c00200
)

// Limits of certificates, in bytes.
const (
	MaxEKPublic    = 1024
	MaxCertificate = 2048 // of an endorsement key: libtpms' largest NV index

	// MaxCardCertificates bounds the payload of OpCardCertify.
	MaxCardCertificates = MaxPayload

	ekCertificateHeader = 16
)

// CertificateIndex gives the NV index of the certificate for the endorsement key
// at a persistent handle, or 0 if the handle is none of an endorsement key.
func CertificateIndex(handle uint32) uint32 {
	switch handle {
	case 0x81010001:
		return IndexRSAEK
	case 0x8101000a:
		return IndexP256EK
	case 0x81010016:
		return IndexP384EK
	}
	return 0
}

// EKHandles are where the endorsement keys of the set are persistent, in the order
// of the set.
func (k Keys) EKHandles() (handles []uint32) {
	for _, ek := range []struct {
		key    Keys
		handle uint32
	}{{KeyRSAEK, 0x81010001}, {KeyP256EK, 0x8101000a}, {KeyP384EK, 0x81010016}} {
		if k&ek.key != 0 {
			handles = append(handles, ek.handle)
		}
	}
	return handles
}

// EKCertificate is the answer to OpEKCertificate. Nothing in it is secret.
//
//	 0                4                8
//	+----------------+----------------+
//	| handle         | NV index       | 0
//	+----------------+----------------+
//	| public length  | DER length     | 8
//	+----------------+----------------+
//	| public area ...                 | 16
//	+---------------------------------+
//	| certificate ...                 |
//	+---------------------------------+
type EKCertificate struct {
	Handle uint32 // where the key is persistent
	Index  uint32 // where the guest finds DER in NV memory; 0: nowhere
	Public []byte // TPMT_PUBLIC; empty if the card has not seen it: certify the slot
	DER    []byte // certificate, X.509; empty if none was issued
}

// AppendEKCertificate appends c in wire form to dst.
func AppendEKCertificate(dst []byte, c *EKCertificate) []byte {
	le := binary.LittleEndian
	dst = le.AppendUint32(dst, c.Handle)
	dst = le.AppendUint32(dst, c.Index)
	dst = le.AppendUint32(dst, uint32(len(c.Public)))
	dst = le.AppendUint32(dst, uint32(len(c.DER)))
	return append(append(dst, c.Public...), c.DER...)
}

// ParseEKCertificate reads an EKCertificate and checks its form, not what is in
// it. Its parts alias b.
func ParseEKCertificate(b []byte) (EKCertificate, error) {
	c, rest, err := cutEKCertificate(b)
	if err == nil && len(rest) != 0 {
		return EKCertificate{}, fmt.Errorf("%d bytes behind an EK certificate: %w", len(rest), ErrMalformed)
	}
	return c, err
}

// cutEKCertificate reads the EKCertificate that b begins with.
func cutEKCertificate(b []byte) (c EKCertificate, rest []byte, err error) {
	if len(b) < ekCertificateHeader {
		return c, nil, fmt.Errorf("EK certificate of %d bytes: %w", len(b), ErrMalformed)
	}
	le := binary.LittleEndian
	handle, index := le.Uint32(b[0:]), le.Uint32(b[4:])
	public, der, rest := le.Uint32(b[8:]), le.Uint32(b[12:]), b[ekCertificateHeader:]
	if public > MaxEKPublic || der > MaxCertificate || int(public+der) > len(rest) {
		return c, nil, fmt.Errorf("EK certificate: %d and %d of %d bytes: %w", public, der, len(rest), ErrMalformed)
	}
	if index != 0 && (der == 0 || index != CertificateIndex(handle)) {
		return c, nil, fmt.Errorf("EK certificate of %#x, %d bytes in index %#x: %w", handle, der, index, ErrMalformed)
	}
	end := public + der
	c = EKCertificate{Handle: handle, Index: index, Public: rest[:public:public], DER: rest[public:end:end]}
	return c, rest[end:], nil
}

// AppendEKCertificates appends a list, one behind the other, to dst.
func AppendEKCertificates(dst []byte, list []EKCertificate) []byte {
	for i := range list {
		dst = AppendEKCertificate(dst, &list[i])
	}
	return dst
}

// ParseEKCertificates reads a list of at most MaxEKs, no two of one handle, that
// is all of b. Its parts alias b.
func ParseEKCertificates(b []byte) ([]EKCertificate, error) {
	var list []EKCertificate
	for len(b) > 0 {
		c, rest, err := cutEKCertificate(b)
		if err != nil {
			return nil, err
		}
		if len(list) == MaxEKs || slices.ContainsFunc(list, func(o EKCertificate) bool { return o.Handle == c.Handle }) {
			return nil, fmt.Errorf("EK certificate %d of %#x: %w", len(list), c.Handle, ErrMalformed)
		}
		list, b = append(list, c), rest
	}
	return list, nil
}

// AppendHandle appends the payload of OpEKCertificate to dst.
func AppendHandle(dst []byte, handle uint32) []byte {
	return binary.LittleEndian.AppendUint32(dst, handle)
}

// ParseHandle reads the payload of OpEKCertificate.
func ParseHandle(b []byte) (uint32, error) {
	if len(b) != 4 {
		return 0, fmt.Errorf("handle of %d bytes: %w", len(b), ErrMalformed)
	}
	return binary.LittleEndian.Uint32(b), nil
}
