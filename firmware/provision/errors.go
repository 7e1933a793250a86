// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"errors"
	"fmt"
)

// Error is a command that the TPM refused.
type Error struct {
	Command string // such as "TPM2_CreatePrimary"
	Code    uint32 // TPM_RC, Part 2, 6.6.3
}

// Error implements error.
func (e *Error) Error() string {
	if name := codeNames[bare(e.Code)]; name != "" {
		return fmt.Sprintf("%s: %s (%#x)", e.Command, name, e.Code)
	}
	return fmt.Sprintf("%s: response code %#x", e.Command, e.Code)
}

// Response codes that this package tells apart.
const (
	rcNVDefined = 0x14c
	rcBadAuth   = 0x0a2
	rcNVSpace   = 0x14b
)

// ErrFull: the TPM's NV memory has no room. The cause of an error of Certify.
var ErrFull = errors.New("the TPM's NV memory is full: remove an index of it")

// codeNames has the response codes that provisioning may meet, without the bits
// that say which handle, session or parameter is meant.
var codeNames = map[uint32]string{
	0x100:       "TPM_RC_INITIALIZE",
	0x101:       "TPM_RC_FAILURE",
	0x125:       "TPM_RC_AUTH_MISSING",
	0x143:       "TPM_RC_COMMAND_CODE",
	0x146:       "TPM_RC_NV_RANGE",
	0x147:       "TPM_RC_NV_SIZE",
	0x148:       "TPM_RC_NV_LOCKED",
	0x149:       "TPM_RC_NV_AUTHORIZATION",
	0x14a:       "TPM_RC_NV_UNINITIALIZED",
	rcNVSpace:   "TPM_RC_NV_SPACE",
	rcNVDefined: "TPM_RC_NV_DEFINED",
	0x082:       "TPM_RC_ATTRIBUTES",
	0x083:       "TPM_RC_HASH",
	0x084:       "TPM_RC_VALUE",
	0x085:       "TPM_RC_HIERARCHY",
	0x087:       "TPM_RC_KEY_SIZE",
	0x08b:       "TPM_RC_HANDLE",
	0x095:       "TPM_RC_SIZE",
	0x096:       "TPM_RC_SYMMETRIC",
	rcBadAuth:   "TPM_RC_BAD_AUTH",
	0x0a6:       "TPM_RC_CURVE",
	0x902:       "TPM_RC_OBJECT_MEMORY",
	0x904:       "TPM_RC_MEMORY",
	0x909:       "TPM_RC_CANCELED",
	0x920:       "TPM_RC_NV_RATE",
	0x921:       "TPM_RC_LOCKOUT",
	0x922:       "TPM_RC_RETRY",
	0x923:       "TPM_RC_NV_UNAVAILABLE",
}

// bare drops from a format-one code (bit 7) what tells which argument is meant.
func bare(rc uint32) uint32 {
	if rc&0x80 != 0 {
		return rc & 0xbf
	}
	return rc
}

// refused tells whether err is the TPM's refusal of a command for one of the
// reasons given.
func refused(err error, codes ...uint32) bool {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return false
	}
	for _, c := range codes {
		if bare(e.Code) == c {
			return true
		}
	}
	return false
}
