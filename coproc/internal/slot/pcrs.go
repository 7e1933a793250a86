// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"context"
	"errors"
	"fmt"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
)

var _ coproc.PCRMapper = (*Slot)(nil)

// MapPCRs implements coproc.PCRMapper.
func (s *Slot) MapPCRs(ctx context.Context, m coproc.PCRMap) error {
	const op = "map PCRs"
	if err := s.begin(ctx, op); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if !s.powered {
		return s.opError(op, fmt.Errorf("not powered on: %w", coproc.ErrUnsupported))
	}
	if s.failed != nil {
		return s.opError(op, fmt.Errorf("%w: %w", coproc.ErrFailed, s.failed))
	}
	payload := abi.AppendPCRMap(nil, &m)
	err := s.retry(func() error {
		if s.w == nil {
			if err := s.resume(); err != nil {
				return err
			}
		}
		return s.mapPCRs(payload)
	})
	return s.opError(op, err)
}

func (s *Slot) mapPCRs(payload []byte) error {
	c, err := s.admin(&abi.Submission{Op: abi.OpMapPCRs, Payload: payload})
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
