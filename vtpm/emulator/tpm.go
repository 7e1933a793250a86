// SPDX-License-Identifier: Apache-2.0

package emulator

// TPM 2.0 numbers, TCG "Trusted Platform Module Library" Part 2: sections 6.5.2
// (TPM_CC), 6.6.3 (TPM_RC), 6.9 (TPM_ST), 6.10 (TPM_SU).
const (
	tpmHeader     = 10
	tagNoSessions = 0x8001

	ccShutdown      = 0x145
	ccGetCapability = 0x17a

	rcFailure     = 0x101
	rcCommandSize = 0x142
	rcCanceled    = 0x909
)

// A command and a response begin with the same header:
//
//	 0        2                 6                10
//	+--------+-----------------+-----------------+----
//	| tag    | size (all of it)| code            | ...
//	+--------+-----------------+-----------------+----
func sizeOf(b []byte) int64  { return int64(order.Uint32(b[2:])) }
func codeOf(b []byte) uint32 { return order.Uint32(b[6:]) }

// whole reports whether b is one message by its own idea of its size.
func whole(b []byte) bool { return len(b) >= tpmHeader && sizeOf(b) == int64(len(b)) }

// putError writes the response that carries only rc and returns its length.
// Preconditions: len(dst) >= tpmHeader.
func putError(dst []byte, rc uint32) int {
	order.PutUint16(dst, tagNoSessions)
	order.PutUint32(dst[2:], tpmHeader)
	order.PutUint32(dst[6:], rc)
	return tpmHeader
}

// TPM2_Shutdown (Part 3, section 9.4): STATE before a suspension of the machine,
// CLEAR before any other end.
var (
	shutdownState = []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x45, 0, 1}
	shutdownClear = []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x45, 0, 0}
)
