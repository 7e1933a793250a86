// SPDX-License-Identifier: Apache-2.0

package pcie

import (
	"encoding/binary"
	"errors"
	"time"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/internal/slot"
)

// worker is a slot that was opened, from the creation of its queue to the end.
// It implements slot.Worker.
type worker struct {
	*ring
	fn *function
	id abi.Identity
}

var _ slot.Worker = (*worker)(nil)

// startWorker opens the slot of a name and has its TPM greeted.
func startWorker(f *function, name string) (*worker, error) {
	r, err := f.openSlot(name)
	if err != nil {
		return nil, err
	}
	w := &worker{ring: r, fn: f}
	if w.id, err = slot.Greet(w, name, f.cfg.AdminTimeout); err != nil {
		w.Kill()
		return nil, err
	}
	return w, nil
}

// Identity implements slot.Worker.
func (w *worker) Identity() abi.Identity { return w.id }

// Send implements slot.Worker.
func (w *worker) Send(sub *abi.Submission) error { return w.submit(sub) }

// Receive implements slot.Worker.
func (w *worker) Receive(sub *abi.Submission, timeout time.Duration) (abi.Completion, error) {
	return w.wait(sub, timeout)
}

// Wipe implements slot.Worker.
func (w *worker) Wipe() { w.wipe() }

// Cancel implements slot.Worker.
func (w *worker) Cancel(seq uint64) error {
	if w.ended.Load() || w.t.Err() != nil {
		return nil // there is nothing left to cancel
	}
	var word [4]byte
	binary.LittleEndian.PutUint32(word[:], uint32(seq))
	return w.t.Post(abi.DoorbellOffset(w.number)+abi.DoorbellCancel, word[:])
}

// Shutdown implements slot.Worker.
func (w *worker) Shutdown() { w.end() }

// Stop implements slot.Worker.
func (w *worker) Stop(timeout time.Duration) error {
	_, err := slot.Call(w, &abi.Submission{Op: abi.OpClose}, timeout)
	return errors.Join(err, w.delete())
}

// Kill implements slot.Worker.
func (w *worker) Kill() string {
	if err := w.delete(); err != nil {
		return err.Error()
	}
	return "queue deleted"
}

// delete deletes the slot's queue, which closes the slot.
func (w *worker) delete() error {
	w.end() // first: the pages and the event may go
	defer w.release()
	return w.fn.deleteQueue(w.ring)
}
