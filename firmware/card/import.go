// SPDX-License-Identifier: Apache-2.0

package card

import (
	"context"
	"slices"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/wire"
)

// importTPM takes one piece of a TPM that has lived elsewhere, and makes a slot of
// it with the last.
func (s *Session) importTPM(ctx context.Context, sub *abi.Submission, dst []byte) ([]byte, *Grant, error) {
	defer clear(sub.Payload)
	c, err := abi.ParseImportChunk(sub.Payload)
	if err != nil {
		return nil, nil, err
	}
	if c.Offset == 0 {
		s.dropImport()
		s.incoming = make([]byte, 0, c.Size)
	}
	if int(c.Offset) != len(s.incoming) || int(c.Size) != cap(s.incoming) {
		return nil, nil, refuse(abi.StatusOrder, "import: piece at %d of %d, want %d of %d", c.Offset, c.Size, len(s.incoming), cap(s.incoming))
	}
	s.incoming = append(s.incoming, c.Bytes...)
	if !c.Last() {
		return nil, nil, nil
	}
	defer s.dropImport()
	req, err := abi.ParseSlotCreate(s.incoming[:abi.SlotCreateSize])
	if err != nil {
		return nil, nil, err
	}
	made, err := s.card.takeOver(ctx, &req, s.incoming[abi.SlotCreateSize:])
	return s.made(made, err, &s.card.counters.creates, dst)
}

// dropImport forgets what has come of an import.
func (s *Session) dropImport() {
	clear(s.incoming)
	s.incoming = nil
}

// takeOver makes a slot with a TPM that has lived elsewhere: its permanent state in
// clear is state.
func (c *Card) takeOver(ctx context.Context, req *abi.SlotCreate, state []byte) (*slot, error) {
	if req.Flags != 0 {
		return nil, refuse(abi.StatusBadField, "flags %#x are for a clone", req.Flags)
	}
	made, err := c.make(ctx, req, &wire.Setup{Flags: wire.Import}, state)
	if made == nil && statusOf(err) == abi.StatusInternal { // libtpms may not survive what is damaged
		err = refuse(abi.StatusCorrupt, "the state may be none of a TPM that this card can run: %w", err)
	}
	return made, err
}

// keysAt gives the endorsement keys that were found, by their handles.
func keysAt(eks []abi.EK) (keys abi.Keys) {
	for flag := abi.Keys(1); flag <= abi.DefaultKeys; flag <<= 1 {
		for _, handle := range flag.EKHandles() {
			if slices.ContainsFunc(eks, func(ek abi.EK) bool { return ek.Handle == handle }) {
				keys |= flag
			}
		}
	}
	return keys
}
