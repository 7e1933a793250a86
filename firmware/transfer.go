// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"fmt"

	"hwvtpm/coproc/abi"
)

// transfer is a state on its way out of the worker or into it, sealed. It is one
// of the two at a time, and goes with the worker.
type transfer struct {
	parts [2][]byte
	want  [2]uint32 // sizes of a state that comes in; 0: none does
}

// part gives the part's bytes.
func (t *transfer) part(p abi.StatePart) *[]byte { return &t.parts[p-abi.StatePermanent] }

// begin makes room for a state that comes in.
func (t *transfer) begin(s abi.StateSizes) {
	*t = transfer{want: [2]uint32{s.Permanent, s.Volatile}}
	for i, n := range t.want {
		t.parts[i] = make([]byte, 0, n)
	}
}

// write takes what comes next of a part.
func (t *transfer) write(p abi.StatePlace, b []byte) error {
	part, want := t.part(p.Part), t.want[p.Part-abi.StatePermanent]
	switch {
	case want == 0 || p.Offset != uint32(len(*part)):
		return fmt.Errorf("state is written at %d, want %d: %w", p.Offset, len(*part), errOrder)
	case len(b) == 0 || len(b) > int(want)-len(*part):
		return fmt.Errorf("%d bytes at %d of %d: %w", len(b), p.Offset, want, abi.ErrMalformed)
	}
	*part = append(*part, b...)
	return nil
}

// read copies what is at a place to dst.
func (t *transfer) read(p abi.StatePlace, dst []byte) (int, error) {
	part := *t.part(p.Part)
	if t.want[0] != 0 || len(part) == 0 {
		return 0, fmt.Errorf("no state was saved: %w", errOrder)
	}
	return copy(dst, part[min(int(p.Offset), len(part)):]), nil
}

// whole gives a state that has come in.
func (t *transfer) whole() (perm, vol []byte, err error) {
	for i, n := range t.want {
		if n == 0 || len(t.parts[i]) != int(n) {
			return nil, nil, fmt.Errorf("state is not complete: %w", errOrder)
		}
	}
	return t.parts[0], t.parts[1], nil
}

// move answers the submissions that move a state.
func (s *server) move(sub *abi.Submission, dst []byte) (int, error) {
	switch sub.Op {
	case abi.OpStateSave:
		return s.saveState(sub.Payload, dst)
	case abi.OpStateBegin:
		sizes, err := abi.ParseStateSizes(sub.Payload)
		if err == nil {
			s.moving.begin(sizes)
		}
		return 0, err
	case abi.OpStateLoad:
		return s.loadState(sub.Payload, dst)
	}
	place, rest, err := abi.ParseStatePlace(sub.Payload)
	switch {
	case err != nil:
		return 0, err
	case sub.Op == abi.OpStateWrite:
		return 0, s.moving.write(place, rest)
	case len(rest) != 0:
		return 0, fmt.Errorf("%d bytes behind a place: %w", len(rest), abi.ErrMalformed)
	}
	return s.moving.read(place, dst[:abi.MaxPayload])
}

func (s *server) saveState(payload, dst []byte) (int, error) {
	if len(payload) != 0 {
		return 0, fmt.Errorf("payload of %d bytes: %w", len(payload), abi.ErrMalformed)
	}
	perm, vol, err := s.slot.saveState()
	if err != nil {
		return 0, err
	}
	s.moving = transfer{parts: [2][]byte{perm, vol}}
	return len(abi.AppendStateSizes(dst, abi.StateSizes{Permanent: uint32(len(perm)), Volatile: uint32(len(vol))})), nil
}

func (s *server) loadState(payload, dst []byte) (int, error) {
	if len(payload) != abi.RunIDSize {
		return 0, fmt.Errorf("run id of %d bytes: %w", len(payload), abi.ErrMalformed)
	}
	perm, vol, err := s.moving.whole()
	if err != nil {
		return 0, err
	}
	r, err := s.slot.loadState([abi.RunIDSize]byte(payload), perm, vol)
	s.moving = transfer{}
	if err != nil {
		return 0, err
	}
	return len(abi.AppendPowerOnReply(dst, r)), nil
}
