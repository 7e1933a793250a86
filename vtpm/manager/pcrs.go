// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"fmt"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/vtpm/bootevidence"
	"hwvtpm/vtpm/door"
)

// PCRs gives the host's PCR 0-7 as they are to be mapped into a machine's TPM, from a
// reading that is at most Config.PCRAge old, or that all who ask meanwhile share.
// Errors are those of hostpcr.
func (m *Manager) PCRs(ctx context.Context) (coproc.PCRMap, error) {
	r, err := m.cfg.PCRs.Recent(ctx, m.cfg.PCRAge)
	var values coproc.PCRMap
	if err == nil {
		values, err = r.Map()
	}
	if ctx.Err() == nil {
		m.setProblem(problemPCRs, err)
	}
	return values, err
}

// BootEvidence gives what a machine's TPM is to show of its host's boot, for one run of
// the machine. It says of the machine no more than its name and run, so that the slot may
// be on any card; and a machine is not powered on often, so no share of quotes is taken.
func (m *Manager) BootEvidence(ctx context.Context, _ door.Caller, req *door.BootEvidenceRequest) (*door.BootEvidence, error) {
	if !abi.ValidName(req.Slot) || len(req.Run) != len(coproc.RunID{}) {
		return nil, fmt.Errorf("%w: boot evidence for the slot %.80q, a run of %d bytes", ErrRequest, req.Slot, len(req.Run))
	}
	run := coproc.RunID(req.Run)
	nonce := bootevidence.Qualifying(run, req.Slot)
	reading, err := m.cfg.PCRs.ReadAlone(ctx, nonce[:])
	if err != nil {
		return nil, err
	}
	var certificate []byte
	if id := m.identity(); id != nil {
		certificate = id.aik.Raw
	}
	e, err := bootevidence.New(run, req.Slot, certificate, &reading.Quote, &reading.Values)
	if err != nil {
		return nil, err
	}
	text, err := e.Marshal()
	return &door.BootEvidence{Evidence: text}, err
}
