// SPDX-License-Identifier: Apache-2.0

package main

import "encoding/binary"

// Commands of TPM 2.0 Part 3, spelled out.
var (
	startup = []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x44, 0, 0}
	random  = []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x7b, 0, 32}

	// CreatePrimary of an unrestricted RSA-3072 signing key, which takes a while.
	rsaKey = createPrimary([]byte{
		0x00, 0x01, 0x00, 0x0b, 0x00, 0x04, 0x04, 0x72, 0x00, 0x00, // RSA, SHA-256, attributes, no policy
		0x00, 0x10, 0x00, 0x10, 0x0c, 0x00, 0, 0, 0, 0, 0x00, 0x00, // no scheme, 3072 bits
	})
	// The same for ECDSA with P-256, and a signature of this first loaded key.
	signingKey = createPrimary([]byte{
		0x00, 0x23, 0x00, 0x0b, 0x00, 0x04, 0x04, 0x72, 0x00, 0x00,
		0x00, 0x10, 0x00, 0x18, 0x00, 0x0b, 0x00, 0x03, 0x00, 0x10, 0, 0, 0, 0,
	})
	sign = withSize(append(append([]byte{
		0x80, 0x02, 0, 0, 0, 0, 0, 0, 0x01, 0x5d, 0x80, 0, 0, 0,
		0, 0, 0, 9, 0x40, 0, 0, 0x09, 0, 0, 0, 0, 0, // empty password
		0, 32,
	}, make([]byte, 32)...), 0x00, 0x10, 0x80, 0x24, 0x40, 0, 0, 0x07, 0, 0)) // digest, no scheme, no ticket
)

func createPrimary(public []byte) []byte {
	be := binary.BigEndian
	b := []byte{0x80, 0x02, 0, 0, 0, 0, 0, 0, 0x01, 0x31, 0x40, 0, 0, 0x01} // owner
	b = append(b, 0, 0, 0, 9, 0x40, 0, 0, 0x09, 0, 0, 0, 0, 0)              // empty password
	b = append(b, 0, 4, 0, 0, 0, 0)
	b = be.AppendUint16(b, uint16(len(public)))
	b = append(b, public...)
	b = append(b, 0, 0, 0, 0, 0, 0)
	return withSize(b)
}

// withSize fills in the size field.
func withSize(b []byte) []byte {
	binary.BigEndian.PutUint32(b[2:], uint32(len(b)))
	return b
}
