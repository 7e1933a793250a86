// SPDX-License-Identifier: Apache-2.0

package store

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/sealed"
	"hwvtpm/internal/durable"
)

// Names in a slot's directory.
const (
	stateName    = "state"
	volatileName = "volatile"
)

func dirName(id sealed.SlotID) string { return hex.EncodeToString(id[:]) }

func (s *Store) slotPath(id sealed.SlotID, name string) string {
	return filepath.Join(s.dir, slotsName, dirName(id), name)
}

// SlotKey is the key of one slot, to be handed to its worker. The caller clears
// it.
func (s *Store) SlotKey(id sealed.SlotID) (*sealed.Key, error) { return s.keys.SlotKey(id) }

// Newest is the position of a slot that the anchor knows of, or 0, 0.
func (s *Store) Newest(id sealed.SlotID) (epoch, generation uint64) {
	epoch, generation, _ = s.anchor.Newest(id)
	return epoch, generation
}

// Create makes a slot of a record without a number, its first state and what is
// known of its endorsement keys. It exists when Create returns it, and at no earlier
// moment. limit is how many slots there may be. If name or access key are taken the error
// is fs.ErrExist.
func (s *Store) Create(r Record, state []byte, certs []abi.EKCertificate, limit int) (Record, error) {
	label, err := sealed.ParseLabel(state)
	if err == nil && (label.Slot != r.ID || label.Kind != sealed.KindPermanent) {
		err = fmt.Errorf("%s for slot %x: %w", label, r.ID, sealed.ErrForeign)
	}
	if err != nil {
		return Record{}, fmt.Errorf("first state: %w", err)
	}
	if err := s.Free(r); err != nil {
		return Record{}, err
	}
	if err := os.Mkdir(s.slotPath(r.ID, ""), 0o700); err != nil {
		return Record{}, fmt.Errorf("create slot: %w", err)
	}
	added := Record{}
	if len(certs) > 0 {
		err = s.SaveCertificates(r.ID, certs)
	}
	if err == nil {
		err = s.firstState(r.ID, state)
	}
	if err == nil {
		added, err = s.add(r, limit)
	}
	if err != nil {
		// With ErrFailed the table may have it, after the next start.
		if !errors.Is(err, ErrFailed) {
			s.removeDir(r.ID)
		}
		return Record{}, fmt.Errorf("create slot: %w", err)
	}
	// It exists already. A state that is not noted is one that a crash left.
	return added, s.anchor.Note(label)
}

// firstState writes a slot's first state to its new directory.
func (s *Store) firstState(id sealed.SlotID, state []byte) error {
	path := s.slotPath(id, stateName)
	if err := s.replace(path, state); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(filepath.Dir(path)))
}

func (s *Store) removeDir(id sealed.SlotID) error {
	s.setDurability(id, unknown)
	if err := os.RemoveAll(s.slotPath(id, "")); err != nil {
		return fmt.Errorf("remove slot's files: %w", err)
	}
	return nil
}

// Remove takes a slot out of the table, without which none of its states is accepted.
// After ErrFailed nobody knows whether it exists. The next steps are Advance, and
// RemoveFiles.
func (s *Store) Remove(id sealed.SlotID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, err := s.find(id)
	if err != nil {
		return err
	}
	if err := s.change(slices.Delete(slices.Clone(s.records), i, i+1)); err != nil {
		return err
	}
	return s.anchor.Retain(ids(s.records))
}

// Advance makes sure that nothing that was done until now can be set back.
func (s *Store) Advance() error { return s.anchor.Advance() }

// RemoveFiles removes what is left of a slot that was removed.
func (s *Store) RemoveFiles(id sealed.SlotID) error {
	s.mu.Lock()
	_, err := s.find(id)
	s.mu.Unlock()
	if err == nil {
		return fmt.Errorf("slot %x is in the table: %w", id, fs.ErrInvalid)
	}
	return s.removeDir(id)
}

// durability is what is known of a slot's state file.
type durability uint8

const (
	unknown durability = iota // an earlier process may have been killed in between
	unsure                    // a sync has failed
	synced
)

func (s *Store) durability(id sealed.SlotID) durability {
	s.onDiskMu.Lock()
	defer s.onDiskMu.Unlock()
	return s.onDisk[id]
}

func (s *Store) setDurability(id sealed.SlotID, d durability) {
	s.onDiskMu.Lock()
	defer s.onDiskMu.Unlock()
	if d == unknown {
		delete(s.onDisk, id)
		return
	}
	s.onDisk[id] = d
}

// ReadState reads a slot's state as the disk has it, for good: what a later
// check makes the newest is not lost by a power cut.
func (s *Store) ReadState(id sealed.SlotID) ([]byte, error) {
	path := s.slotPath(id, stateName)
	blob, err := sealed.NewFile(path).Read()
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	switch s.durability(id) {
	case unknown:
		sweep(filepath.Dir(path))
		err = settle(path)
	case unsure:
		// An error that was told once is not told again by another sync:
		// only another write is sure.
		err = s.replace(path, blob)
	case synced:
	}
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	s.setDurability(id, synced)
	return blob, nil
}

// CheckState says whether a state that was opened is current. See sealed.Anchor.
func (s *Store) CheckState(l sealed.Label) error { return s.anchor.Check(l) }

// SaveState makes a sealed state with this label the slot's, durably. If the error
// is sealed.ErrUnsure the slot must not go on until its state was read again;
// after any other error the state is the old one.
func (s *Store) SaveState(l sealed.Label, state []byte) error {
	err := s.replace(s.slotPath(l.Slot, stateName), state)
	if err != nil {
		if errors.Is(err, sealed.ErrUnsure) {
			s.setDurability(l.Slot, unsure)
		}
		return err
	}
	if err := s.anchor.Note(l); err != nil {
		return fmt.Errorf("%w: %w", sealed.ErrUnsure, err)
	}
	return nil
}

// openState authenticates a slot's state and says what it is.
func (s *Store) openState(id sealed.SlotID) (sealed.Label, error) {
	blob, err := s.ReadState(id)
	if err != nil {
		return sealed.Label{}, err
	}
	slot, err := s.keys.Slot(id)
	if err != nil {
		return sealed.Label{}, err
	}
	defer slot.Close()
	plain, label, err := slot.Open(nil, sealed.KindPermanent, blob)
	clear(plain)
	return label, err
}

// AdoptState accepts a slot's state that is older than the anchor says, on an
// operator's word. The slot is not open. If there is nothing to accept the error
// is ErrCurrent.
func (s *Store) AdoptState(id sealed.SlotID, reason string) (sealed.Adoption, error) {
	label, err := s.openState(id)
	if err != nil {
		return sealed.Adoption{}, err
	}
	err = s.anchor.Check(label)
	if err == nil {
		return sealed.Adoption{}, fmt.Errorf("%s: %w", label, ErrCurrent)
	}
	if !errors.Is(err, sealed.ErrRollback) {
		return sealed.Adoption{}, err
	}
	return s.anchor.Adopt(label, reason)
}

// heldWait is how long to wait for a worker whose card died just now: it needs a
// moment to notice.
const heldWait = time.Second

// Volatile opens the file of a slot's volatile state, and makes it if it is
// missing. What is in it is the worker's affair.
//
// The file is locked, and as a worker gets the same open file it stays locked
// while the worker lives: two would write over each other. The card's own lock
// does not outlive the card's process, but a worker may, for a moment. If it is
// a long one the error is ErrHeld.
func (s *Store) Volatile(id sealed.SlotID) (*os.File, error) {
	path := s.slotPath(id, volatileName)
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("%s is not a regular file (%v): %w", path, err, sealed.ErrDamaged)
	}
	if err := lockFor(fd, heldWait); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// lockFor locks a file, and waits for so long if somebody else has it.
func lockFor(fd int, wait time.Duration) error {
	for deadline := time.Now().Add(wait); ; time.Sleep(10 * time.Millisecond) {
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		if time.Now().After(deadline) {
			return ErrHeld
		}
	}
}

// settle makes sure that a file is durable as it is, with its name.
func settle(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(path))
}
