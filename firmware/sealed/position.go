// SPDX-License-Identifier: Apache-2.0

package sealed

import (
	"fmt"
	"io/fs"
	"maps"
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
		return fmt.Errorf("%s: the slot was destroyed, or may have been: %w", l, ErrRollback)
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
// that is refused has a generation that no state reaches.
func (a *Anchor) Newest(id SlotID) (epoch, generation uint64, known bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p, known := a.rec.table[id]
	return p.epoch, p.generation, known
}

// Counter is the value of the monotonic counter as the anchor left it.
func (a *Anchor) Counter() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.rec.counter
}

// Retain forgets all slots but these, and the table. It is called when a table without
// the others was noted, or checked: record and position of the table change together, so
// whoever gets a table accepted that has one of the others has an operator adopt that.
func (a *Anchor) Retain(ids []SlotID) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failed != nil {
		return a.failed
	}
	retained := map[SlotID]bool{{}: true}
	for _, id := range ids {
		retained[id] = true
	}
	before := len(a.rec.table)
	maps.DeleteFunc(a.rec.table, func(id SlotID, _ position) bool { return !retained[id] })
	a.dirty = a.dirty || len(a.rec.table) != before
	return nil
}

// RefuseUnknown takes down that no state is accepted of those of these slots that the
// anchor does not know. It is for a table that is about to be adopted: it may have
// slots that were destroyed and forgotten. Each of them has to be adopted by itself.
func (a *Anchor) RefuseUnknown(ids []SlotID) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failed != nil {
		return a.failed
	}
	for _, id := range ids {
		if _, known := a.rec.table[id]; known {
			continue
		}
		if err := a.moveLocked(id, position{a.rec.epoch, destroyed}); err != nil {
			return err
		}
	}
	return nil
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
