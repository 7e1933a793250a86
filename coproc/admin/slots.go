// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"errors"
	"fmt"
	"os"

	"hwvtpm/coproc/abi"
)

// Create makes a slot: a new TPM with new seeds and the keys that are asked
// for. It is there as a whole when Create returns without an error.
func (c *Client) Create(ctx context.Context, req abi.SlotCreate) (abi.SlotInfo, error) {
	if !abi.ValidName(req.Name) {
		return abi.SlotInfo{}, failed(abi.OpSlotCreate, "", errName(req.Name))
	}
	sub := abi.Submission{Op: abi.OpSlotCreate, Payload: abi.AppendSlotCreate(nil, &req)}
	return ask(ctx, c, sub, req.Name, infoOf(req.Name))
}

// Clone makes a slot with the contents of another that is not open, and with
// endorsement seeds and an access key of its own.
func (c *Client) Clone(ctx context.Context, source uint32, req abi.SlotCreate) (abi.SlotInfo, error) {
	if !abi.ValidName(req.Name) {
		return abi.SlotInfo{}, failed(abi.OpSlotClone, "", errName(req.Name))
	}
	req.Flags |= abi.CreateNewIdentity
	sub := abi.Submission{Op: abi.OpSlotClone, Slot: source, Payload: abi.AppendSlotCreate(nil, &req)}
	return ask(ctx, c, sub, req.Name, infoOf(req.Name))
}

// Import makes a slot with a TPM that has lived elsewhere, whose identity and
// contents stay: state is its permanent state by libtpms, in clear. Destroy that
// afterwards: one TPM must not be in two places. The banks in req are those that
// the TPM has, as far as the caller knows; the keys are found out.
func (c *Client) Import(ctx context.Context, req abi.SlotCreate, state []byte) (abi.SlotInfo, error) {
	if !abi.ValidName(req.Name) {
		return abi.SlotInfo{}, failed(abi.OpSlotImport, "", errName(req.Name))
	}
	req.Keys = 0
	if size := abi.SlotCreateSize + len(state); len(state) == 0 || size > abi.MaxImport {
		return abi.SlotInfo{}, failed(abi.OpSlotImport, req.Name, fmt.Errorf("a state of %d bytes is none of a TPM", len(state)))
	}
	all := append(abi.AppendSlotCreate(make([]byte, 0, abi.SlotCreateSize+len(state)), &req), state...)
	defer clear(all)
	msg := make([]byte, 0, abi.MaxPayload)
	defer func() { clear(msg[:cap(msg)]) }()
	for at := 0; ; {
		chunk := abi.ImportChunk{Offset: uint32(at), Size: uint32(len(all)), Bytes: all[at:min(at+abi.MaxImportChunk, len(all))]}
		msg = abi.AppendImportChunk(msg[:0], &chunk)
		sub := abi.Submission{Op: abi.OpSlotImport, Payload: msg}
		if chunk.Last() {
			return ask(ctx, c, sub, req.Name, infoOf(req.Name))
		}
		if _, err := ask(ctx, c, sub, req.Name, empty); err != nil {
			return abi.SlotInfo{}, err
		}
		at += len(chunk.Bytes)
	}
}

func errName(name string) error {
	return fmt.Errorf("%q is no name for a slot: a letter or digit, then at most %d letters, digits, and any of . _ -",
		name, abi.MaxName-1)
}

// List gives all slots, in the order of their numbers.
func (c *Client) List(ctx context.Context) ([]abi.SlotInfo, error) {
	var all []abi.SlotInfo
	var from uint32
	for {
		payload, err := c.call(ctx, abi.Submission{
			Op: abi.OpSlotList, Payload: abi.AppendListRequest(nil, abi.ListRequest{From: from}),
		})
		if err != nil {
			return nil, failed(abi.OpSlotList, "", err)
		}
		part, err := abi.ParseSlotList(payload, from)
		if err != nil {
			return nil, failed(abi.OpSlotList, "", err)
		}
		all = append(all, part...)
		if len(part) == 0 || part[len(part)-1].Number == abi.CardSlot {
			return all, nil
		}
		if len(all) > maxSlots {
			return nil, failed(abi.OpSlotList, "", fmt.Errorf("more than %d slots: %w", maxSlots, abi.ErrMalformed))
		}
		from = part[len(part)-1].Number + 1
	}
}

// maxSlots bounds what a card can make us hold.
const maxSlots = 1 << 16

// Show describes the slot of this name.
func (c *Client) Show(ctx context.Context, name string) (abi.SlotInfo, error) {
	if err := checkName(abi.OpSlotShow, name); err != nil {
		return abi.SlotInfo{}, err
	}
	return ask(ctx, c, abi.Submission{Op: abi.OpSlotShow, Payload: []byte(name)}, name, infoOf(name))
}

// infoOf reads the description of the slot of this name, and no other.
func infoOf(name string) func([]byte) (abi.SlotInfo, error) {
	return func(b []byte) (abi.SlotInfo, error) {
		i, err := abi.ParseSlotInfo(b)
		if err == nil && i.Name != name {
			err = fmt.Errorf("answer is about slot %s: %w", i.Name, abi.ErrMalformed)
		}
		return i, err
	}
}

// Open proves the right to open a slot, and opens it: prove signs the card's
// challenge with the slot's access key (accesskey.Prove), or refuses to. The
// files are the caller's: over a socket the slot's channel, data and control
// (docs/slot-channel.md); over a PCI function none.
func (c *Client) Open(ctx context.Context, name string, prove func(abi.Challenge) (abi.Proof, error)) (abi.Challenge, []*os.File, error) {
	if err := checkName(abi.OpSlotOpen, name); err != nil {
		return abi.Challenge{}, nil, err
	}
	ch, err := ask(ctx, c, abi.Submission{Op: abi.OpSlotChallenge, Payload: []byte(name)}, name, abi.ParseChallenge)
	if err != nil {
		return abi.Challenge{}, nil, err
	}
	proof, err := prove(ch)
	if err != nil {
		return abi.Challenge{}, nil, failed(abi.OpSlotOpen, name, err)
	}
	payload, files, err := c.conn.Command(ctx, &abi.Submission{Op: abi.OpSlotOpen, Slot: ch.Number, Payload: proof[:]})
	if err != nil {
		return abi.Challenge{}, nil, failed(abi.OpSlotOpen, name, err)
	}
	if _, err := empty(payload); err != nil {
		closeFiles(files)
		return abi.Challenge{}, nil, failed(abi.OpSlotOpen, name, err)
	}
	return ch, files, nil
}

// do executes a command on a slot that has no answer.
func (c *Client) do(ctx context.Context, op abi.Opcode, s abi.SlotInfo, payload []byte) error {
	_, err := ask(ctx, c, abi.Submission{Op: op, Slot: s.Number, Payload: payload}, s.Name, empty)
	return err
}

// Park puts the TPM of an open slot to rest; its next command wakes it up.
func (c *Client) Park(ctx context.Context, s abi.SlotInfo) error {
	return c.do(ctx, abi.OpSlotPark, s, nil)
}

// Lock keeps a slot from being opened, until Unlock.
func (c *Client) Lock(ctx context.Context, s abi.SlotInfo) error {
	return c.do(ctx, abi.OpSlotLock, s, nil)
}

// Unlock undoes Lock.
func (c *Client) Unlock(ctx context.Context, s abi.SlotInfo) error {
	return c.do(ctx, abi.OpSlotUnlock, s, nil)
}

// Adopt accepts the state of a slot that is older than what the card knows,
// such as a restored backup, and begins a new epoch. The reason is logged.
func (c *Client) Adopt(ctx context.Context, s abi.SlotInfo, reason string) error {
	if reason == "" || len(reason) > abi.MaxReason || abi.Text([]byte(reason)) != reason {
		return failed(abi.OpSlotAdopt, s.Name, errReason)
	}
	return c.do(ctx, abi.OpSlotAdopt, s, []byte(reason))
}

// PermitRestore lets the slot, which is not open, go back to an older state once:
// to the one that is loaded next. It is in the memory of the card's process. The
// reason is logged.
func (c *Client) PermitRestore(ctx context.Context, s abi.SlotInfo, reason string) error {
	if reason == "" || len(reason) > abi.MaxReason || abi.Text([]byte(reason)) != reason {
		return failed(abi.OpSlotRestore, s.Name, errReason)
	}
	return c.do(ctx, abi.OpSlotRestore, s, []byte(reason))
}

var errReason = errors.New("the reason has to be one line of at most 256 bytes")
