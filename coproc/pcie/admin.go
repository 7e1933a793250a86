// SPDX-License-Identifier: Apache-2.0

package pcie

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"time"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/admin"
	"hwvtpm/coproc/internal/slot"
)

var _ admin.Conn = (*Card)(nil)

// Command executes an admin command and gives its answer, with no files: it is
// an admin.Conn. Commands take turns, and wait for slots that
// are opened. ctx is looked at before the command is submitted; one that is under
// way cannot be taken back. Commands by which slots are opened are the driver's:
// see OpenSlot.
func (c *Card) Command(ctx context.Context, sub *abi.Submission) ([]byte, []*os.File, error) {
	switch sub.Op {
	case abi.OpSlotOpen, abi.OpQueueCreate, abi.OpQueueDelete:
		return nil, nil, slot.OpError("admin", "", fmt.Errorf("slots are opened by the driver: %w", coproc.ErrUnsupported))
	}
	payload, err := c.fn.command(ctx, sub)
	return payload, nil, slot.OpError("admin", "", err)
}

func (f *function) command(ctx context.Context, sub *abi.Submission) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", coproc.ErrCanceled, err)
	}
	if err := f.readyLocked(); err != nil {
		return nil, err
	}
	return f.run(sub, f.cfg.AdminTimeout+f.cfg.Timeout)
}

// run runs an admin command on a function that is ready. If it gets no answer
// the function is reset before the next. mu is held.
func (f *function) run(sub *abi.Submission, timeout time.Duration) ([]byte, error) {
	if f.admin == nil {
		return nil, errStopped
	}
	payload, err := command(f.admin, sub, timeout)
	if _, refused := errors.AsType[*coproc.Error](err); err != nil && !refused {
		f.endAdmin()
	}
	return payload, err
}

// command runs one submission that must succeed, and gives a copy of its answer.
func command(r *ring, sub *abi.Submission, timeout time.Duration) ([]byte, error) {
	if err := r.submit(sub); err != nil {
		return nil, err
	}
	c, err := r.wait(sub, timeout)
	if err != nil {
		return nil, err
	}
	if err := admin.Refusal(sub.Op, c.Status, c.Payload); err != nil {
		return nil, err
	}
	return bytes.Clone(c.Payload), nil
}

// openSlot makes the function ready, opens a slot by its access key, and gives it
// a queue.
func (f *function) openSlot(name string) (*ring, error) {
	key, err := f.cfg.Key(name)
	if err != nil {
		return nil, fmt.Errorf("access key: %w", err)
	}
	defer clear(key)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.readyLocked(); err != nil {
		return nil, err
	}
	number, proof, err := f.prove(name, key)
	if err != nil {
		return nil, err
	}
	if r := f.rings[1+int(number)]; r != nil {
		return nil, fmt.Errorf("slot %d of the card has a queue: %w", number, coproc.ErrInUse)
	}
	// Whoever had the queue before is not to use its pages any more.
	if _, err := f.run(&abi.Submission{Op: abi.OpQueueDelete, Slot: number}, f.cfg.AdminTimeout); err != nil {
		return nil, fmt.Errorf("delete queue: %w", err)
	}
	if _, err := f.run(&abi.Submission{Op: abi.OpSlotOpen, Slot: number, Payload: proof[:]}, f.cfg.AdminTimeout); err != nil {
		return nil, err
	}
	return f.createQueue(number)
}

// prove answers the card's challenge for a slot.
func (f *function) prove(name string, key ed25519.PrivateKey) (uint32, abi.Proof, error) {
	b, err := f.run(&abi.Submission{Op: abi.OpSlotChallenge, Payload: []byte(name)}, f.cfg.AdminTimeout)
	if err != nil {
		return 0, abi.Proof{}, err
	}
	ch, err := abi.ParseChallenge(b)
	if err != nil {
		return 0, abi.Proof{}, err
	}
	if uint64(ch.Number) >= uint64(f.queues-1) {
		return 0, abi.Proof{}, fmt.Errorf("slot has number %d, and the function queues for %d slots: %w", ch.Number, f.queues-1, coproc.ErrUnsupported)
	}
	return ch.Number, abi.Proof(ed25519.Sign(key, abi.OpenMessage(ch.Serial, ch.ID, ch.Nonce))), nil
}

// createQueue gives an open slot its queue.
func (f *function) createQueue(number uint32) (*ring, error) {
	n := 1 + int(number)
	r := newRing(f.t, f.mem, n)
	sub := &abi.Submission{Op: abi.OpQueueCreate, Slot: number, Payload: abi.AppendQueueConfig(nil, &abi.QueueConfig{
		SQ: r.at[pageSQ], CQ: r.at[pageCQ], Entries: ringEntries, Vector: uint16(n),
	})}
	if _, err := f.run(sub, f.cfg.AdminTimeout); err != nil {
		r.end()
		r.release()
		return nil, fmt.Errorf("create queue: %w", err)
	}
	f.rings[n] = r
	return r, nil
}

// deleteQueue deletes a ring's queue, if the card has it still.
func (f *function) deleteQueue(r *ring) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.rings[r.number] != r {
		return nil // it went with a reset or a transport
	}
	delete(f.rings, r.number)
	if _, err := f.run(&abi.Submission{Op: abi.OpQueueDelete, Slot: uint32(r.number - 1)}, f.cfg.AdminTimeout); err != nil {
		return fmt.Errorf("delete queue: %w", err)
	}
	return nil
}
