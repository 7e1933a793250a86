// SPDX-License-Identifier: Apache-2.0

package store

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"hwvtpm/firmware/sealed"
)

// loadTable reads the table. It is not known to be current yet.
func (s *Store) loadTable() (sealed.Label, error) {
	file := sealed.NewFile(s.path(tableName))
	blob, err := file.Read()
	if err == nil {
		err = settle(file.Path())
	}
	if err != nil {
		return sealed.Label{}, fmt.Errorf("table: %w", err)
	}
	plain, label, err := s.card.Open(nil, sealed.KindTable, blob)
	if err != nil {
		return sealed.Label{}, fmt.Errorf("table: %w", err)
	}
	defer clear(plain)
	s.records, err = parseTable(plain)
	s.generation = label.Generation
	return label, err
}

// change writes the table with these records, and takes them if that is done.
//
// Preconditions: s.mu is held, or nobody else has s.
func (s *Store) change(records []Record) error {
	if s.failed != nil {
		return s.failed
	}
	if err := checkRecords(records); err != nil {
		return fmt.Errorf("table: %w: %w", err, fs.ErrInvalid)
	}
	plain := appendTable(nil, records)
	defer clear(plain)
	s.generation++ // a write that failed has used its number
	label := sealed.Label{Kind: sealed.KindTable, Generation: s.generation, Epoch: s.anchor.Epoch()}
	blob, err := s.card.Seal(nil, label.Kind, label.Generation, label.Epoch, plain)
	if err != nil {
		return fmt.Errorf("table: %w", err)
	}
	err = s.replace(s.path(tableName), blob)
	if err != nil && !errors.Is(err, sealed.ErrUnsure) {
		return fmt.Errorf("table: %w", err)
	}
	if err == nil {
		err = s.anchor.Note(label)
	}
	if err != nil {
		s.failed = fmt.Errorf("%w: %w", ErrFailed, err)
		return s.failed
	}
	s.records = records
	return nil
}

// Free says why a slot with this name and access key cannot be made now.
func (s *Store) Free(r Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return s.failed
	}
	return s.taken(r)
}

// Records are all slots, ascending by number.
func (s *Store) Records() []Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.records)
}

func ids(records []Record) []sealed.SlotID {
	list := make([]sealed.SlotID, len(records))
	for i, r := range records {
		list[i] = r.ID
	}
	return list
}

// find gives the place of a slot in the table.
func (s *Store) find(id sealed.SlotID) (int, error) {
	i := slices.IndexFunc(s.records, func(r Record) bool { return r.ID == id })
	if i < 0 {
		return 0, fmt.Errorf("slot %x: %w", id, fs.ErrNotExist)
	}
	return i, nil
}

// add puts a slot under the lowest free number into the table.
func (s *Store) add(r Record, limit int) (Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.taken(r); err != nil {
		return Record{}, err
	}
	if len(s.records) >= min(limit, MaxSlots) {
		return Record{}, fmt.Errorf("%d slots: %w", len(s.records), ErrFull)
	}
	for r.Number = 0; int(r.Number) < len(s.records) && s.records[r.Number].Number == r.Number; r.Number++ {
	}
	records := append(slices.Clone(s.records), r)
	slices.SortFunc(records, func(a, b Record) int { return cmp.Compare(a.Number, b.Number) })
	return r, s.change(records)
}

// taken says why a slot cannot be made beside those that there are. Tables of earlier
// versions may have two slots with one access key.
func (s *Store) taken(r Record) error {
	for _, o := range s.records {
		if o.Name == r.Name {
			return fmt.Errorf("slot %q: %w", r.Name, fs.ErrExist)
		}
		if o.AccessKey == r.AccessKey {
			return fmt.Errorf("access key of slot %q: %w; each slot needs a key pair of its own", o.Name, fs.ErrExist)
		}
	}
	return nil
}

// SetLocked locks or unlocks a slot.
func (s *Store) SetLocked(id sealed.SlotID, locked bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, err := s.find(id)
	if err != nil || s.records[i].Locked == locked {
		return err
	}
	records := slices.Clone(s.records)
	records[i].Locked = locked
	return s.change(records)
}
