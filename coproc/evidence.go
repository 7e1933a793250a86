// SPDX-License-Identifier: Apache-2.0

package coproc

import (
	"context"
	"fmt"
)

// EvidenceShower is implemented by slots whose TPM can show the guest evidence of its
// host's boot. All slots of this module's drivers do.
type EvidenceShower interface {
	// ShowBootEvidence gives the TPM evidence for the present run, 1 to
	// abi.MaxBootEvidence bytes of any form. With the guest's next
	// TPM2_Startup(CLEAR) it is in the NV index abi.BootEvidenceIndex, and again
	// after each reset, until other evidence comes or the run ends. A guest that has
	// filled its NV starts without, which the card counts.
	//
	// It is called after PowerOn or LoadState, and before the first Execute; later
	// only with the evidence that is there. ErrUnsupported: it is too late.
	ShowBootEvidence(ctx context.Context, evidence []byte) error
}

// BootEvidence gives evidence of the host's boot for a run.
type BootEvidence func(ctx context.Context, run RunID) ([]byte, error)

// WithBootEvidence gives a slot whose TPM shows evidence of its host's boot. The host
// is asked once after each power-on and reset, as for WithHostPCRs; but a TPM without
// evidence serves its guest all the same. A state that is loaded has what it was saved
// with, until a reset.
//
// note, if not nil, is told how each question ended. The slot given is not used beside
// the result. ErrUnsupported: it is no EvidenceShower, or no StateMover.
func WithBootEvidence(s Slot, host BootEvidence, note func(error)) (Slot, error) {
	const op = "show boot evidence"
	shower, ok := s.(EvidenceShower)
	mover, moves := s.(movable)
	if !ok || !moves {
		return nil, &Error{Op: op, Err: ErrUnsupported}
	}
	return newToldSlot(mover, false, note, func(ctx context.Context, run RunID) error {
		evidence, err := host(ctx, run)
		if err != nil {
			return &Error{Op: op, Err: fmt.Errorf("evidence of the host: %w", err)}
		}
		return shower.ShowBootEvidence(ctx, evidence)
	}), nil
}
