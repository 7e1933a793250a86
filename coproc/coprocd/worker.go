// SPDX-License-Identifier: Apache-2.0

package coprocd

import (
	"time"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/internal/link"
	"hwvtpm/coproc/internal/slot"
)

// worker is one opening of the slot: the sockets that lead to it. Behind them
// the card may put the TPM to rest and wake it up. It implements slot.Worker.
type worker struct {
	*link.Link
	id abi.Identity
}

var _ slot.Worker = (*worker)(nil)

// Identity implements slot.Worker.
func (w *worker) Identity() abi.Identity { return w.id }

// Stop implements slot.Worker.
func (w *worker) Stop(timeout time.Duration) error {
	_, err := slot.Call(w, &abi.Submission{Op: abi.OpClose}, timeout)
	w.Link.Close()
	return err
}

// Kill implements slot.Worker. The end of the sockets ends the opening; until
// the card has noticed, the slot is in use, which open waits for.
func (w *worker) Kill() string {
	w.Link.Close()
	return "channel closed"
}
