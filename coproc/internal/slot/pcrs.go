// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"context"
	"errors"
	"fmt"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
)

var (
	_ coproc.PCRMapper      = (*Slot)(nil)
	_ coproc.EvidenceShower = (*Slot)(nil)
)

// MapPCRs implements coproc.PCRMapper.
func (s *Slot) MapPCRs(ctx context.Context, m coproc.PCRMap) error {
	return s.tellOfHost(ctx, "map PCRs", &abi.Submission{Op: abi.OpMapPCRs, Payload: abi.AppendPCRMap(nil, &m)})
}

// ShowBootEvidence implements coproc.EvidenceShower.
func (s *Slot) ShowBootEvidence(ctx context.Context, evidence []byte) error {
	const op = "show boot evidence"
	if err := abi.CheckBootEvidence(evidence); err != nil {
		return s.opError(op, err)
	}
	return s.tellOfHost(ctx, op, &abi.Submission{Op: abi.OpBootEvidence, Payload: evidence})
}

// tellOfHost tells the card something of the host, before the guest begins. Said again,
// it does nothing, so a worker that dies over it does not matter.
func (s *Slot) tellOfHost(ctx context.Context, op string, sub *abi.Submission) error {
	if err := s.begin(ctx, op); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return s.opError(op, err)
	}
	return s.opError(op, s.retry(func() error {
		if s.w == nil {
			if err := s.resume(); err != nil {
				return err
			}
		}
		return s.tell(sub)
	}))
}

func (s *Slot) tell(sub *abi.Submission) error {
	c, err := s.admin(sub)
	e, refused := errors.AsType[*coproc.Error](err)
	if !refused {
		return err
	}
	if e.Status == abi.StatusOrder {
		e.Err = coproc.ErrUnsupported // it is too late, in the run or for the guest
	}
	if len(c.Payload) > 0 {
		e.Err = fmt.Errorf("%w: %q", e.Err, c.Payload)
	}
	return err
}
