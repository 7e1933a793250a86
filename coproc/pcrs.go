// SPDX-License-Identifier: Apache-2.0

package coproc

import (
	"context"

	"hwvtpm/coproc/abi"
)

// PCRMap has the values of the host's PCR 0-7, in some banks.
type PCRMap = abi.PCRMap

// PCRMapper is implemented by slots whose TPM can show the PCRs of the host that
// it runs on. All slots of this module's drivers do.
type PCRMapper interface {
	// MapPCRs gives the TPM the host's PCR 0-7 for the present run. From the
	// guest's TPM2_Startup on, and again after each reset, PCR 0-7 have these
	// values in every bank of m, and abi.UnmappedPCR in every other one, and no
	// command changes them: TPM2_PCR_Extend and its like are answered with
	// TPM_RC_LOCALITY. A map without banks maps nothing.
	//
	// It is called after PowerOn or LoadState, and before the first Execute;
	// later only with the map that is in force, which does nothing. The map ends
	// with the run. ErrUnsupported: the card does not know its own TPM's state
	// well enough, or it is too late; what was in force stays in force.
	MapPCRs(ctx context.Context, m PCRMap) error
}
