// SPDX-License-Identifier: Apache-2.0

package store

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"hwvtpm/firmware/sealed"
)

// Config describes a store.
type Config struct {
	// Dir is the directory. If it is missing or empty a new card is made in
	// it; its parent must exist.
	Dir string

	// Protection keeps key and counter.
	Protection Protection

	// Interval is how often the anchor advances at most. What was saved since
	// can be set back by who can stop the card. Zero: sealed.DefaultInterval.
	Interval time.Duration
}

// Store is an open store.
type Store struct {
	dir        string
	protection Protection
	lock       *os.File
	keys       *sealed.Store
	anchor     *sealed.Anchor
	identity   *ecdsa.PrivateKey
	fresh      bool     // this call of Open has made the card
	strays     []string // directories that the table does not have

	// replace makes data the content of a file, durably. Tests put failing
	// ones here.
	replace func(path string, data []byte) error

	mu         sync.Mutex // guards what follows; held while the table is written
	card       *sealed.Slot
	records    []Record // ascending by number
	generation uint64   // of the table, of the last attempt to write it
	failed     error    // the table takes no change any more

	onDiskMu sync.Mutex
	onDisk   map[sealed.SlotID]durability
}

func replaceFile(path string, data []byte) error { return sealed.NewFile(path).Replace(data) }

// Open opens a store, and makes a new card if the directory is missing or empty.
// Everything that is not whole is an error, and nothing has changed then.
func Open(cfg Config) (*Store, error) {
	s, _, err := open(cfg, "")
	return s, err
}

// Adopt opens a store that Open refuses because it, or a part of it, was set back
// or its anchor is lost. It is an operator's explicit act, see package sealed. The
// adoptions are to be logged; there are none if Open would have done. Slots that
// are older than the anchor still says are refused still: see AdoptState.
func Adopt(cfg Config, reason string) (*Store, []sealed.Adoption, error) {
	if reason == "" {
		return nil, nil, fmt.Errorf("adopt a store: a reason is needed: %w", fs.ErrInvalid)
	}
	return open(cfg, reason)
}

func open(cfg Config, reason string) (*Store, []sealed.Adoption, error) {
	s := &Store{
		dir: cfg.Dir, protection: cfg.Protection, replace: replaceFile,
		onDisk: map[sealed.SlotID]durability{},
	}
	if err := openDir(s.dir); err != nil {
		return nil, nil, err
	}
	var err error
	if s.lock, err = takeLock(s.dir); err != nil {
		return nil, nil, err
	}
	var adoptions []sealed.Adoption
	s.fresh, err = isNew(s.dir)
	switch {
	case err != nil:
	case !s.fresh:
		adoptions, err = s.load(cfg, reason)
	case reason != "":
		err = fmt.Errorf("adopt %s: there is nothing: %w", s.dir, ErrIncomplete)
	default:
		err = s.create(cfg)
	}
	if err != nil {
		s.release()
		return nil, nil, err
	}
	return s, adoptions, nil
}

// create makes a card. The table is last: without it there is no card.
func (s *Store) create(cfg Config) error {
	keys, counter, err := cfg.Protection.Create(s.dir)
	if err != nil {
		return fmt.Errorf("new card: %w", err)
	}
	s.keys = keys
	if s.anchor, err = sealed.CreateAnchor(s.anchorConfig(counter, cfg.Interval)); err == nil {
		s.card, err = keys.Slot(sealed.SlotID{})
	}
	if err == nil {
		err = s.createIdentity()
	}
	if err == nil {
		err = os.Mkdir(s.path(slotsName), 0o700)
	}
	if err == nil {
		err = s.change(nil)
	}
	if err != nil {
		return fmt.Errorf("new card: %w", err)
	}
	return nil
}

func (s *Store) anchorConfig(c sealed.Counter, interval time.Duration) sealed.AnchorConfig {
	return sealed.AnchorConfig{Store: s.keys, Path: s.path(anchorName), Counter: c, Interval: interval}
}

// load opens the card that there is.
func (s *Store) load(cfg Config, reason string) ([]sealed.Adoption, error) {
	sweep(s.dir)
	if err := checkDir(s.path(slotsName)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	keys, counter, err := cfg.Protection.Open(s.dir)
	if err != nil {
		return nil, err
	}
	s.keys = keys
	if s.card, err = keys.Slot(sealed.SlotID{}); err != nil {
		return nil, err
	}
	label, err := s.loadTable()
	if err != nil {
		return nil, err
	}
	if err := s.loadIdentity(); err != nil {
		return nil, err
	}
	adoptions, err := s.openAnchor(s.anchorConfig(counter, cfg.Interval), label, reason)
	if err != nil {
		return nil, err
	}
	return adoptions, s.findStrays()
}

// openAnchor opens the anchor and asks it for the table. What it refuses is
// adopted if there is a reason.
func (s *Store) openAnchor(cfg sealed.AnchorConfig, table sealed.Label, reason string) ([]sealed.Adoption, error) {
	var adoptions []sealed.Adoption
	anchor, err := sealed.OpenAnchor(cfg)
	if err != nil && reason != "" && adoptable(err) {
		var d sealed.Adoption
		anchor, d, err = sealed.AdoptAnchor(cfg, s.newestEpoch(table), reason)
		adoptions = append(adoptions, d)
	}
	if err != nil {
		return nil, err
	}
	s.anchor = anchor
	err = anchor.Check(table)
	if errors.Is(err, sealed.ErrRollback) && reason != "" {
		var d sealed.Adoption
		if err = anchor.RefuseUnknown(ids(s.records)); err == nil {
			d, err = anchor.Adopt(table, reason)
		}
		adoptions = append(adoptions, d)
	}
	if err == nil {
		err = anchor.Retain(ids(s.records)) // a crash may have come between table and anchor
	}
	return adoptions, err
}

func adoptable(err error) bool {
	for _, cause := range []error{sealed.ErrRollback, sealed.ErrCounter, sealed.ErrDamaged, fs.ErrNotExist} {
		if errors.Is(err, cause) {
			return true
		}
	}
	return false
}

// newestEpoch is the greatest epoch that anything in the store is of.
func (s *Store) newestEpoch(table sealed.Label) uint64 {
	epoch := table.Epoch
	for _, r := range s.records {
		if l, err := s.openState(r.ID); err == nil { // what cannot be opened will not run either
			epoch = max(epoch, l.Epoch)
		}
	}
	return epoch
}

// findStrays looks for directories of slots that the table does not have.
func (s *Store) findStrays() error {
	entries, err := os.ReadDir(s.path(slotsName))
	if err != nil {
		return fmt.Errorf("read store: %w", err)
	}
	known := map[string]bool{}
	for _, r := range s.records {
		known[dirName(r.ID)] = true
	}
	for _, e := range entries {
		if !known[e.Name()] {
			s.strays = append(s.strays, filepath.Join(slotsName, e.Name()))
		}
	}
	return nil
}

func (s *Store) path(name string) string { return filepath.Join(s.dir, name) }

// Fresh says whether opening has made the card.
func (s *Store) Fresh() bool { return s.fresh }

// Strays are directories of slots that the table does not have, from creations
// and removals that were cut short. They are for an operator to look at.
func (s *Store) Strays() []string { return slices.Clone(s.strays) }

// Protection says how key and counter are kept.
func (s *Store) Protection() Protection { return s.protection }

// Epoch is the anchor's, to be sealed into new states.
func (s *Store) Epoch() uint64 { return s.anchor.Epoch() }

// Counter is the value that the anchor is bound to.
func (s *Store) Counter() uint64 { return s.anchor.Counter() }

// Digest is that of all positions.
func (s *Store) Digest() [32]byte { return s.anchor.Digest() }

// Tick advances the anchor if it is time for it.
func (s *Store) Tick(now time.Time) error { return s.anchor.Tick(now) }

// Close advances the anchor and lets go of the store. Its error says that what was
// saved last can be set back still. It may be called again.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.failed = fmt.Errorf("store: %w", fs.ErrClosed)
	}
	err := s.anchor.Close()
	s.release()
	return err
}

// release lets go of what is held.
func (s *Store) release() {
	if s.card != nil {
		s.card.Close()
	}
	if s.keys != nil {
		s.keys.Close()
	}
	s.lock.Close() // last: another process may begin
}
