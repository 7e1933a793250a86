// SPDX-License-Identifier: Apache-2.0

package firmware

import "encoding/binary"

// What the worker reads and makes of TPM commands itself (TCG TPM 2.0 Part 1,
// "Command/Response Structure"; Part 2, 6.5.2 and 6.6). All big-endian.
const (
	tpmHeaderSize = 10 // tag (2), size (4), command or response code (4)

	tagNoSessions = 0x8001 // TPM_ST_NO_SESSIONS
	tagSessions   = 0x8002 // TPM_ST_SESSIONS

	ccStartup  = 0x144 // TPM2_Startup
	ccShutdown = 0x145 // TPM2_Shutdown

	rsPW = 0x40000009 // TPM_RS_PW

	rcSuccess       = 0x000
	rcInitialize    = 0x100 // TPM_RC_INITIALIZE
	rcFailure       = 0x101 // TPM_RC_FAILURE
	rcLocality      = 0x907 // TPM_RC_LOCALITY
	rcCanceled      = 0x909 // TPM_RC_CANCELED
	rcNVUnavailable = 0x923 // TPM_RC_NV_UNAVAILABLE
)

// putResponse writes a response that is only a code and returns its size.
func putResponse(dst []byte, rc uint32) int {
	binary.BigEndian.PutUint16(dst[0:], tagNoSessions)
	binary.BigEndian.PutUint32(dst[2:], tpmHeaderSize)
	binary.BigEndian.PutUint32(dst[6:], rc)
	return tpmHeaderSize
}

// responseCode reads the code of a response, TPM_RC_FAILURE if there is none.
func responseCode(resp []byte) uint32 {
	if len(resp) < tpmHeaderSize {
		return rcFailure
	}
	return binary.BigEndian.Uint32(resp[6:])
}

// commandCode reads the code of a command, 0 if it is too short.
func commandCode(cmd []byte) uint32 {
	if len(cmd) < tpmHeaderSize {
		return 0
	}
	return binary.BigEndian.Uint32(cmd[6:])
}
