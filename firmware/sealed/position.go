// SPDX-License-Identifier: Apache-2.0

package sealed

import (
	"fmt"
	"io/fs"
)

// Check says whether a blob that was opened is current: nil, or ErrRollback and
// why. It is asked before the slot runs. A permanent state has to be the newest
// that the anchor knows of, or a newer one, and is the newest from then on; so has
// a table. A volatile state carries generation and epoch of the permanent state that it
// goes with, and has to go with the newest.
//
// An unknown slot is taken as it is: it was made after the last advance.
func (a *Anchor) Check(l Label) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failed != nil {
		return a.failed
	}
	is := position{l.Epoch, l.Generation}
	newest, known := a.rec.table[l.Slot]
	switch {
	case l.Epoch > a.rec.epoch:
		return fmt.Errorf("%s is of an epoch to come, this is %d: the counter was set back or replaced: %w", l, a.rec.epoch, ErrCounter)
	case !l.Kind.positioned() && l.Kind != KindVolatile:
		return fmt.Errorf("check %s, which has no position: %w", l, fs.ErrInvalid)
	case known && newest.generation == destroyed:
		return fmt.Errorf("%s: the slot was destroyed: %w", l, ErrRollback)
	case l.Kind == KindVolatile && (!known || is != newest):
		return fmt.Errorf("%s does not go with the newest permanent state, %s: %w", l, newest, ErrRollback)
	case known && is.before(newest):
		return fmt.Errorf("%s is older than the newest known, %s: it was set back: restore the newest one, or adopt this one: %w", l, newest, ErrRollback)
	}
	return a.moveLocked(l.Slot, is)
}

// Note takes down that a permanent state or a table is saved. It is called when the blob is
// durable, not before: a record must not demand what a crash can take away. The
// state is anchored by the next advance.
//
// A slot that was open when another one was adopted goes on in the epoch that it
// was opened in: none but this run has saved anything of it since.
func (a *Anchor) Note(l Label) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failed != nil {
		return a.failed
	}
	is := position{l.Epoch, l.Generation}
	newest, known := a.rec.table[l.Slot]
	if !l.Kind.positioned() || l.Epoch < a.first || l.Epoch > a.rec.epoch || l.Generation == destroyed || known && !newest.before(is) {
		return fmt.Errorf("note %s in epoch %d after %s: %w", l, a.rec.epoch, newest, ErrGeneration)
	}
	return a.moveLocked(l.Slot, is)
}

// Newest gives the newest permanent state of a slot that the anchor knows of. One
// that was destroyed has a generation that no state reaches.
func (a *Anchor) Newest(id SlotID) (epoch, generation uint64, known bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p, known := a.rec.table[id]
	return p.epoch, p.generation, known
}

// Full tells whether there is no room for another slot: the anchor remembers all
// that there are, and those that were destroyed.
func (a *Anchor) Full() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.rec.table) >= maxEntries
}

// Counter is the value of the monotonic counter as the anchor left it.
func (a *Anchor) Counter() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.rec.counter
}

// Forget takes down that a slot was destroyed: none of its states is accepted
// from now on, and after the next advance not by a later run either. It stays in
// the table for that.
func (a *Anchor) Forget(id SlotID) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failed != nil {
		return a.failed
	}
	return a.moveLocked(id, position{a.rec.epoch, destroyed})
}

// moveLocked puts a slot at a position.
func (a *Anchor) moveLocked(id SlotID, to position) error {
	was, known := a.rec.table[id]
	if !known && len(a.rec.table) == maxEntries {
		return fmt.Errorf("anchor: %d slots are all that it can hold", maxEntries)
	}
	if !known || was != to {
		a.rec.table[id] = to
		a.dirty = true
	}
	return nil
}
