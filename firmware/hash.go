// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"fmt"

	"hwvtpm/coproc/abi"
)

// hash answers OpHash. The pieces are kept until the sequence is whole; the TPM gets
// it then in one step, so there is no half of one that a crash could leave.
func (s *server) hash(sub *abi.Submission, resp []byte) (int, abi.Flags, error) {
	p, piece, err := abi.ParseHashPlace(sub.Payload)
	if err != nil {
		return 0, 0, err
	}
	if p.Offset == 0 {
		s.hashing = make([]byte, 0, p.Size)
	}
	if int(p.Offset) != len(s.hashing) || int(p.Size) != cap(s.hashing) {
		return 0, 0, fmt.Errorf("piece at %d of a hash sequence, want %d: %w", p.Offset, len(s.hashing), errOrder)
	}
	s.hashing = append(s.hashing, piece...)
	if len(s.hashing) < int(p.Size) {
		return 0, 0, nil
	}
	data := s.hashing
	s.hashing = nil
	return s.slot.hash(sub.Seq, data, resp)
}

// hash gives the TPM a hash sequence under a sequence number, and writes the response
// to resp, as slot.execute does.
func (s *slot) hash(seq uint64, data, resp []byte) (n int, flags abi.Flags, err error) {
	n, err = s.recorded(seq, resp)
	switch {
	case err != nil:
		return 0, 0, err
	case n > 0:
		return n, abi.FlagReplayed, nil
	}
	if s.state.mapped() && !s.started() {
		return 0, 0, fmt.Errorf("hash sequence: %w", errHostPCR)
	}
	n, err = s.runHash(seq, data, resp)
	if err != nil {
		s.fail("hash sequence could not be finished", err)
		return 0, 0, errFailed
	}
	return n, 0, nil
}

// started tells whether the TPM had its TPM2_Startup.
func (s *slot) started() bool {
	// TPM2_ReadClock, Part 3, 29.1.
	cmd := [...]byte{0x80, 0x01, 0, 0, 0, tpmHeaderSize, 0, 0, 0x01, 0x81}
	n, _, err := s.tpm.Process(0, cmd[:], s.scratch)
	return err == nil && responseCode(s.scratch[:n]) == rcSuccess
}

// runHash runs a hash sequence and makes its effect safe. It is no command: a
// TPM2_Shutdown before it still is the last one.
func (s *slot) runHash(seq uint64, data, resp []byte) (int, error) {
	if err := s.tpm.Hash(data); err != nil {
		return 0, err
	}
	s.stats.Commands++
	n := putResponse(resp, rcSuccess)
	m := moment{seq: seq, resp: resp[:n], run: s.state.run, bound: s.bound, flags: s.flags & flagShutdown}
	s.stored = s.tpm.Stored(s.stored[:0])
	if len(s.stored) > 0 {
		return s.saveStored(&m, s.state.flags, resp)
	}
	return n, s.checkpoint(&m)
}
