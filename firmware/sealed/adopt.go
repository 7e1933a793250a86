// SPDX-License-Identifier: Apache-2.0

package sealed

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
)

// maxMinEpoch bounds what an operator may ask for, so that epochs cannot run out.
const maxMinEpoch = 1 << 62

// Adoption says what an operator accepted although it was, or may have been, set
// back. It belongs into a log that is kept.
type Adoption struct {
	Number  uint32 // of this anchor's adoptions, from 1
	What    string // was adopted
	Reason  string // by the operator
	Counter uint64 // afterwards
	Epoch   uint64 // that began with it
	Digest  [sha256.Size]byte
}

// String is the adoption on one line.
func (d Adoption) String() string {
	return fmt.Sprintf("adoption %d: %s; reason %q; counter %d, epoch %d, digest %x",
		d.Number, d.What, d.Reason, d.Counter, d.Epoch, d.Digest)
}

// AdoptAnchor opens an anchor that OpenAnchor refuses because the record is old,
// missing or damaged, or the counter was replaced. It is an operator's explicit
// act, never a program's own choice. A new epoch begins; all that was written
// before it is void.
//
// What is left of the record stays true: slots older than it says are refused
// still (see Adopt). Slots that it does not know of are taken as they are found.
// If the record is gone, minEpoch has to be the greatest epoch of any slot's state,
// since the counter may have been replaced before; else it is 0.
//
// A record of another key or a newer program is not adopted.
func AdoptAnchor(cfg AnchorConfig, minEpoch uint64, reason string) (*Anchor, Adoption, error) {
	return adoptAnchor(cfg, NewFile(cfg.Path), minEpoch, reason)
}

func adoptAnchor(cfg AnchorConfig, file recordFile, minEpoch uint64, reason string) (*Anchor, Adoption, error) {
	if reason == "" || minEpoch > maxMinEpoch {
		return nil, Adoption{}, fmt.Errorf("adopt the anchor from epoch %d for reason %q: %w", minEpoch, reason, fs.ErrInvalid)
	}
	a, err := newAnchor(cfg, file)
	if err != nil {
		return nil, Adoption{}, err
	}
	b, err := file.Read()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, Adoption{}, fmt.Errorf("anchor: %w", err)
	}
	what := "a missing record"
	v, id := a.rec.counter, a.rec.counterID
	if err == nil {
		rec, perr := a.key.parseRecord(b)
		switch {
		case perr == nil:
			what = fmt.Sprintf("a record for counter %d when it was at %d", rec.counter, v)
			a.rec = *rec
		case errors.Is(perr, ErrDamaged):
			what = "a damaged record"
		default:
			return nil, Adoption{}, perr
		}
	}
	a.rec.counter, a.rec.counterID = v, id
	// Epochs go on growing, even with another counter.
	if floor := max(minEpoch, a.rec.epoch); a.rec.base+v < floor {
		a.rec.base = floor - v
	}
	d, err := a.adopted(what, reason)
	if err != nil {
		return nil, Adoption{}, err
	}
	a.first = a.rec.epoch
	return a, d, nil
}

// Adopt accepts a slot's permanent state, or a table, that Check refuses with ErrRollback,
// and begins a new epoch. It is an operator's explicit act. If it fails the
// anchor is out of service, and has to be opened again.
//
// The slot is not open, and is opened in the new epoch: what it saves under an older
// one does not come after what was abandoned. Other slots may stay open.
func (a *Anchor) Adopt(l Label, reason string) (Adoption, error) {
	a.advancing.Lock()
	defer a.advancing.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failed != nil {
		return Adoption{}, a.failed
	}
	if reason == "" || !l.Kind.positioned() || l.Epoch > a.rec.epoch {
		return Adoption{}, fmt.Errorf("adopt %s for reason %q: %w", l, reason, fs.ErrInvalid)
	}
	newest := a.rec.table[l.Slot]
	if err := a.moveLocked(l.Slot, position{l.Epoch, l.Generation}); err != nil {
		return Adoption{}, err
	}
	return a.adopted(fmt.Sprintf("%s instead of %s", l, newest), reason)
}

// adopted begins the epoch of an adoption.
func (a *Anchor) adopted(what, reason string) (Adoption, error) {
	a.rec.adoptions++
	if err := a.begin(); err != nil {
		return Adoption{}, err
	}
	return Adoption{a.rec.adoptions, what, reason, a.rec.counter, a.rec.epoch, a.digestLocked()}, nil
}
