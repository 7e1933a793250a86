// SPDX-License-Identifier: Apache-2.0

package sealed

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"
)

// DefaultInterval is how often Tick advances an anchor at most.
const DefaultInterval = 5 * time.Second

// AnchorConfig is what an anchor needs.
type AnchorConfig struct {
	Store    *Store
	Path     string // of the record
	Counter  Counter
	Interval time.Duration // 0: DefaultInterval
}

// recordFile is what an anchor needs of a File.
type recordFile interface {
	Read() ([]byte, error)
	Create(data []byte) error
	Replace(data []byte) error
}

// Anchor knows the newest generation of each slot, and cannot be set back
// further than its window. It is safe for concurrent use.
//
// To advance is to write a record for the counter's next value, and then to
// increment the counter:
//
//	            record N                     record N+1
//	counter N ------------> write record ------------> increment ---> counter N+1
//	  settled                                pending                   settled
//
// A crash leaves one of the three. All are accepted: settled as it is, pending
// by doing the increment. Any other pair is refused: with a record behind the
// counter the store was set back, with one further ahead the counter was.
//
// While a record is pending, no other is written for that value: after a failure
// the very same bytes are written again. A run that ended may have left one that
// nobody knows of, so opening an anchor advances twice: that puts the counter
// beyond all values that anything was ever written for. Hence, once an advance
// has returned, its record is the only one that will ever be accepted.
//
// An epoch is one run of a card: it is numbered by the counter's value when the
// anchor was opened, so later runs have greater numbers whatever was set back in
// between. Positions (epoch, generation) grow in the order in which saves
// happened, and a slot's blob is accepted from its position in the record on.
//
// The window: what was saved since the last advance can be set back to what that
// advance saw. It is as long as the time between advances.
type Anchor struct {
	key      anchorKey
	file     recordFile
	counter  Counter
	interval time.Duration

	// advancing is held by who writes records and increments, and is taken
	// before mu. A disk or a TPM may take its time: Advance and Tick let mu go
	// meanwhile, so that nobody who saves or opens a slot waits for them.
	advancing sync.Mutex

	mu      sync.Mutex // guards what follows
	rec     record     // as it would be written now; rec.counter is the counter's value
	pending []byte     // record for the next value, not known to be settled
	dirty   bool       // the table has what is in no record yet
	last    time.Time
	first   uint64 // epoch that this run began with
	failed  error  // the anchor is out of service
}

// CreateAnchor makes the anchor of a new card. If there is a record the error is
// fs.ErrExist. Slots that it does not know of are taken as they are found, so it
// is not the answer to a lost record: that is AdoptAnchor.
func CreateAnchor(cfg AnchorConfig) (*Anchor, error) {
	a, err := newAnchor(cfg, NewFile(cfg.Path))
	if err != nil {
		return nil, err
	}
	if err := a.file.Create(a.key.appendRecord(nil, &a.rec)); err != nil {
		return nil, fmt.Errorf("anchor: %w", err)
	}
	return a.begun()
}

// OpenAnchor opens a card's anchor and begins a new epoch. If the record is not
// the last one the error is ErrRollback, ErrCounter or what reading it met, and
// nothing has changed.
func OpenAnchor(cfg AnchorConfig) (*Anchor, error) { return openAnchor(cfg, NewFile(cfg.Path)) }

func openAnchor(cfg AnchorConfig, file recordFile) (*Anchor, error) {
	a, err := newAnchor(cfg, file)
	if err != nil {
		return nil, err
	}
	b, err := file.Read()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("anchor: %w; what is current is not known any more: restore the record, or adopt the slots as they are", err)
	}
	if err != nil {
		return nil, fmt.Errorf("anchor: %w", err)
	}
	rec, err := a.key.parseRecord(b)
	if err != nil {
		return nil, err
	}
	v := a.rec.counter
	switch {
	case rec.counterID != a.rec.counterID:
		return nil, fmt.Errorf("anchor record is for another counter (%x) than this card's (%x): %w", rec.counterID, a.rec.counterID, ErrCounter)
	case rec.counter < v:
		return nil, fmt.Errorf("anchor record is for counter %d, the counter is at %d: the store was set back: restore the newest one, or adopt this one: %w", rec.counter, v, ErrRollback)
	case rec.counter > v+1:
		return nil, fmt.Errorf("anchor record is for counter %d, the counter is at %d: it was set back: %w", rec.counter, v, ErrCounter)
	case rec.counter == v+1:
		a.pending = b
	}
	a.rec = *rec
	a.rec.counter = v
	return a.begun()
}

// newAnchor is an anchor with an empty table and the counter as it is.
func newAnchor(cfg AnchorConfig, file recordFile) (*Anchor, error) {
	key, err := newAnchorKey(cfg.Store)
	if err != nil {
		return nil, err
	}
	a := &Anchor{key: key, file: file, counter: cfg.Counter, interval: cfg.Interval}
	if a.interval == 0 {
		a.interval = DefaultInterval
	}
	a.rec.table = map[SlotID]position{}
	a.rec.counterID, err = a.counter.ID()
	if err == nil {
		a.rec.counter, err = a.counter.Read()
	}
	if err != nil {
		return nil, fmt.Errorf("anchor: counter: %w", err)
	}
	return a, nil
}

// begun is the anchor with its first epoch begun.
func (a *Anchor) begun() (*Anchor, error) {
	if err := a.begin(); err != nil {
		return nil, err
	}
	a.first = a.rec.epoch
	return a, nil
}

// begin starts an epoch. It comes after every record that was ever written. Nobody
// sees the epoch before it has begun: mu is held all the time.
func (a *Anchor) begin() error {
	err := a.settle(false)
	for n := uint64(2); n > 0 && err == nil; n-- {
		if n == 1 {
			a.rec.epoch = a.rec.base + a.rec.counter + 1
		}
		a.freeze()
		err = a.settle(false)
	}
	if err != nil {
		a.failed = fmt.Errorf("anchor: begin an epoch: %w", err)
	}
	return a.failed
}

// freeze makes the record for the counter's next value.
//
// Preconditions: no record is pending.
func (a *Anchor) freeze() {
	next := a.rec
	next.counter++
	a.pending = a.key.appendRecord(nil, &next)
	a.dirty = false
}

// settle writes the pending record, if there is one, and increments the counter
// to its value. free: mu is let go meanwhile.
//
// Preconditions: advancing and mu are held, or nobody else has the anchor.
func (a *Anchor) settle(free bool) error {
	if a.pending == nil {
		return nil
	}
	pending, want := a.pending, a.rec.counter+1
	if free {
		a.mu.Unlock()
	}
	v, err := a.put(pending, want)
	if free {
		a.mu.Lock()
	}
	if err != nil {
		return err
	}
	if v != want {
		a.failed = fmt.Errorf("counter is at %d, not at %d: something else uses it: %w", v, want, ErrCounter)
		return a.failed
	}
	a.rec.counter, a.pending = v, nil
	return nil
}

// put writes a record and increments the counter to its value, unless it has that.
// It gives the value.
func (a *Anchor) put(pending []byte, want uint64) (uint64, error) {
	if err := a.file.Replace(pending); err != nil {
		return 0, err
	}
	v, err := a.counter.Read()
	if err == nil && v == want-1 { // not so after an increment whose answer was lost
		err = a.counter.Increment()
		if err == nil {
			v, err = a.counter.Read()
		}
	}
	if err != nil {
		return 0, fmt.Errorf("counter: %w", err)
	}
	return v, nil
}

// advance is Advance. For free see settle.
//
// Preconditions: advancing and mu are held.
func (a *Anchor) advance(free bool) error {
	if a.failed != nil {
		return a.failed
	}
	err := a.settle(free)
	if err == nil && a.dirty {
		a.freeze()
		err = a.settle(free)
	}
	if err != nil {
		return fmt.Errorf("anchor: advance: %w", err)
	}
	return nil
}

// Advance anchors all that was noted. When it has returned nil, nothing older is
// ever accepted again. It costs nothing if there is nothing new. After an error
// other than ErrCounter it may be tried again; until it succeeds the window grows.
func (a *Anchor) Advance() error {
	a.advancing.Lock()
	defer a.advancing.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.advance(true)
}

// Tick is Advance, but at most once an interval. now is the time of the call.
func (a *Anchor) Tick(now time.Time) error {
	a.advancing.Lock()
	defer a.advancing.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failed == nil && (!a.dirty && a.pending == nil || now.Sub(a.last) < a.interval) {
		return nil
	}
	a.last = now
	return a.advance(true)
}

// Epoch is the number of this run, to be sealed into every new permanent state.
// Adopt changes it.
func (a *Anchor) Epoch() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.rec.epoch
}

// Digest is the SHA-256 of the table of all slots, which logs may show.
func (a *Anchor) Digest() [sha256.Size]byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.digestLocked()
}

func (a *Anchor) digestLocked() [sha256.Size]byte {
	return sha256.Sum256(appendTable(nil, a.rec.table))
}

// Close advances and goes out of service. Its error says that the window stays
// open. It may be called again, and from any goroutine.
func (a *Anchor) Close() error {
	a.advancing.Lock()
	defer a.advancing.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	if errors.Is(a.failed, fs.ErrClosed) {
		return nil
	}
	err := a.advance(false)
	a.failed = fmt.Errorf("anchor: %w", fs.ErrClosed)
	a.key.key.Clear()
	return err
}
