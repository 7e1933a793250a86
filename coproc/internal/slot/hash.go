// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"context"
	"encoding/binary"
	"fmt"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
)

var _ coproc.Hasher = (*Slot)(nil)

// HashSequence implements coproc.Hasher.
func (s *Slot) HashSequence(ctx context.Context, data []byte) error {
	const op = "hash sequence"
	if len(data) > abi.MaxHash {
		return s.opError(op, fmt.Errorf("%d bytes: %w", len(data), coproc.ErrUnsupported))
	}
	if err := s.begin(ctx, op); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return s.opError(op, err)
	}
	s.seq++
	seq := s.seq
	for try := 1; ; try++ {
		if s.w == nil {
			if err := s.revive(); err != nil {
				return s.opError(op, s.fail(err))
			}
		}
		err := s.hash(seq, data)
		if err == nil || try == moveTries || !interrupted(s.w, err) {
			return s.opError(op, err)
		}
	}
}

// usable tells why no request for the TPM may run.
func (s *Slot) usable() error {
	if !s.powered {
		return fmt.Errorf("not powered on: %w", coproc.ErrUnsupported)
	}
	if s.failed != nil {
		return fmt.Errorf("%w: %w", coproc.ErrFailed, s.failed)
	}
	return nil
}

// hash submits a hash sequence. It may be done again with the same number: a worker
// that has it on record answers as before.
func (s *Slot) hash(seq uint64, data []byte) error {
	msg := make([]byte, 0, abi.MaxPayload)
	for at := 0; ; {
		n := min(len(data)-at, abi.MaxHashChunk)
		msg = abi.AppendHashPlace(msg[:0], abi.HashPlace{Size: uint32(len(data)), Offset: uint32(at)})
		c, err := s.admin(&abi.Submission{Op: abi.OpHash, Locality: abi.MaxLocality, Seq: seq, Payload: append(msg, data[at:at+n]...)})
		if err != nil {
			return err
		}
		if at += n; at == len(data) {
			return hashOutcome(c.Payload)
		}
	}
}

// hashOutcome reads the answer to a whole sequence.
func hashOutcome(resp []byte) error {
	if len(resp) != 10 {
		return fmt.Errorf("answer of %d bytes: %w", len(resp), abi.ErrMalformed)
	}
	if rc := binary.BigEndian.Uint32(resp[6:]); rc != 0 {
		return fmt.Errorf("response code %#x: %w", rc, coproc.ErrStorage) // TPM_RC_NV_UNAVAILABLE
	}
	return nil
}
