// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"fmt"

	"hwvtpm/coproc/abi"
)

const (
	certifySize   = 32
	certifiedSize = 16

	// MaxChain bounds the certificates of issuers, in bytes.
	MaxChain = abi.MaxCardCertificates
)

// Certify asks the card to certify the endorsement keys of the TPM that the
// worker makes, or whose certificates it is to write. In the shared memory, at
// BlobOffset, is what the TPM has now: first a list of endorsement keys with the
// certificates in their NV indices (abi.AppendEKCertificates), then what is in the
// indices of the chain. What cannot be read is one zero byte.
//
//	 0            4            8            12           16
//	+------------+------------+------------+------------+
//	| kind       | list length| chain l.   | maker      |
//	+------------+------------+------------+------------+
//	| firmware   | level      | revision   | reserved   | 16
//	+------------+------------+------------+------------+
//
// The worker saves nothing before it has the Certified.
type Certify struct {
	ListLen, ChainLen uint32

	// What kind of TPM it is: TPM_PT_MANUFACTURER, TPM_PT_FIRMWARE_VERSION_1,
	// TPM_PT_LEVEL and TPM_PT_REVISION (Part 2, 6.13).
	Maker, Firmware, Level, Revision uint32
}

// AppendCertify appends c in wire form to dst.
func AppendCertify(dst []byte, c *Certify) []byte {
	for _, v := range []uint32{uint32(KindCertify), c.ListLen, c.ChainLen, c.Maker, c.Firmware, c.Level, c.Revision, 0} {
		dst = binary.LittleEndian.AppendUint32(dst, v)
	}
	return dst
}

// ParseCertify reads a Certify.
func ParseCertify(b []byte) (Certify, error) {
	le := binary.LittleEndian
	if len(b) != certifySize || MessageKind(b) != KindCertify || !zero(b[28:]) {
		return Certify{}, fmt.Errorf("certify of %d bytes: %w", len(b), ErrMalformed)
	}
	c := Certify{
		ListLen: le.Uint32(b[4:]), ChainLen: le.Uint32(b[8:]),
		Maker: le.Uint32(b[12:]), Firmware: le.Uint32(b[16:]), Level: le.Uint32(b[20:]), Revision: le.Uint32(b[24:]),
	}
	if uint64(c.ListLen)+uint64(c.ChainLen) > MaxBlob {
		return Certify{}, fmt.Errorf("certify with %d and %d bytes: %w", c.ListLen, c.ChainLen, ErrMalformed)
	}
	return c, nil
}

// Certified is the answer to Certify. In the shared memory are a list and a chain
// in the same way: certificates whose index is not zero, and the chain unless it
// is empty, are to be written in place of what the TPM has there. The status is
// StatusOK, or the worker exits.
//
//	 0            4            8            12           16
//	+------------+------------+------------+------------+
//	| kind       | status     | list length| chain l.   |
//	+------------+------------+------------+------------+
type Certified struct {
	Status            abi.Status
	ListLen, ChainLen uint32
}

// AppendCertified appends c in wire form to dst.
func AppendCertified(dst []byte, c Certified) []byte {
	for _, v := range []uint32{uint32(KindCertified), uint32(c.Status), c.ListLen, c.ChainLen} {
		dst = binary.LittleEndian.AppendUint32(dst, v)
	}
	return dst
}

// ParseCertified reads a Certified.
func ParseCertified(b []byte) (Certified, error) {
	le := binary.LittleEndian
	if len(b) != certifiedSize || MessageKind(b) != KindCertified {
		return Certified{}, fmt.Errorf("certified of %d bytes: %w", len(b), ErrMalformed)
	}
	status := le.Uint32(b[4:])
	c := Certified{Status: abi.Status(status), ListLen: le.Uint32(b[8:]), ChainLen: le.Uint32(b[12:])}
	if status > 0xffff || c.ChainLen > MaxChain || uint64(c.ListLen)+uint64(c.ChainLen) > MaxBlob {
		return Certified{}, fmt.Errorf("certified with status %#x, %d and %d bytes: %w", status, c.ListLen, c.ChainLen, ErrMalformed)
	}
	return c, nil
}
