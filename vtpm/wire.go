// SPDX-License-Identifier: Apache-2.0

package vtpm

import "encoding/binary"

// Feature bits of the virtio vTPM device (docs/virtio-vtpm.md, "Feature bits").
const (
	// FeatureFramed (VIRTIO_TPM_F_FRAMED): chains carry a locality byte in
	// front of the command and a status byte behind the response.
	FeatureFramed = 0
	// FeatureBufferSize (VIRTIO_TPM_F_BUFSIZE): the config space is valid.
	// The number is the one that Berger's 2025 prototype uses for it.
	FeatureBufferSize = 1
	// FeatureCancel (VIRTIO_TPM_F_CANCEL): the driver may write the config
	// field cancel to end the running command early.
	FeatureCancel = 2
)

// DefaultVirtioID is the virtio device id used when nobody chooses another.
// The OASIS specification has assigned none to a TPM; see docs/virtio-vtpm.md.
const DefaultVirtioID = 38

// BufferSize is the largest TPM command and response, in bytes. It is what
// libtpms, the Linux TPM core (TPM_BUFSIZE) and crosvm's virtio TPM use.
const BufferSize = 4096

// maxWritable bounds the writable part of a chain that the device serves. A
// driver needs BufferSize+1; four times that is generous, and the staging
// buffer of a queue is never larger.
const maxWritable = 4 * BufferSize

// ConfigSize is the size of the device's config space in bytes:
//
//	 0        1        2        3        4                 7
//	+--------+--------+--------+--------+--------+--------+--------+--------+
//	| buffer_size le16| version|max_loc | cancel le32 (write-only, reads 0) |
//	+--------+--------+--------+--------+--------+--------+--------+--------+
//
// All fields are little-endian; the driver writes cancel and reads the rest.
const ConfigSize = 8

const configCancel = 4

// Status is the last writable byte of a framed chain.
type Status uint8

// Values of Status.
const (
	// StatusOK: the writable part starts with a TPM response.
	StatusOK Status = 0
	// StatusBadInput: the chain was not a request; nothing was executed.
	StatusBadInput Status = 1
)

// TPM 2.0 numbers, TCG "Trusted Platform Module Library" Part 2: section 6.9
// (TPM_ST) and section 6.6.3 (TPM_RC).
const (
	tagNoSessions  = 0x8001
	rcFailure      = 0x101
	rcCommandSize  = 0x142
	rcLocality     = 0x907
	rcCanceled     = 0x909
	tpmHeaderBytes = 10
)

// header is the start of every TPM command (Part 1, section 18.2) and, with a
// response code in place of the command code, of every response:
//
//	 0        2                 6                10
//	+--------+-----------------+-----------------+----
//	| tag    | size (all of it)| code            | ...
//	+--------+-----------------+-----------------+----
//
// All fields are big-endian.
type header struct {
	tag  uint16
	size uint32
	code uint32
}

// parseHeader reads the header of b; ok is false if b is shorter than one.
func parseHeader(b []byte) (h header, ok bool) {
	if len(b) < tpmHeaderBytes {
		return header{}, false
	}
	return header{
		tag:  binary.BigEndian.Uint16(b),
		size: binary.BigEndian.Uint32(b[2:]),
		code: binary.BigEndian.Uint32(b[6:]),
	}, true
}

// putError writes the 10-byte TPM response that carries only rc, and returns
// its length. Preconditions: len(dst) >= 10.
func putError(dst []byte, rc uint32) int {
	binary.BigEndian.PutUint16(dst, tagNoSessions)
	binary.BigEndian.PutUint32(dst[2:], tpmHeaderBytes)
	binary.BigEndian.PutUint32(dst[6:], rc)
	return tpmHeaderBytes
}
