// SPDX-License-Identifier: Apache-2.0

package coproc

import (
	"context"

	"hwvtpm/coproc/abi"
)

// MaxHash is the largest hash sequence, in bytes.
const MaxHash = abi.MaxHash

// Hasher is implemented by slots whose TPM takes the hash sequence of a dynamic launch,
// or of an H-CRTM. All slots of this module's drivers do.
type Hasher interface {
	// HashSequence gives the TPM _TPM_Hash_Start, data by _TPM_Hash_Data, and
	// _TPM_Hash_End, as one step (TCG Part 1, "H-CRTM" and "D-RTM"). After
	// TPM2_Startup this resets PCR 17 to 22 and extends PCR 17; before it, it sets
	// PCR 0, which TPM2_Startup(CLEAR) then leaves as it is. data has at most MaxHash
	// bytes, and is not kept. A sequence that succeeded is never lost and never done
	// twice. With an error it may have been done or not, unless that is
	// ErrUnsupported: the card does not know the request, or PCR 0 is the host's.
	//
	// It waits for the methods of Slot, as these do for each other.
	HashSequence(ctx context.Context, data []byte) error
}
