// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"hwvtpm/firmware/sealed"
)

func TestStateSetBack(t *testing.T) {
	cfg := newConfig(t)
	s := openStore(t, cfg)
	a, b := create(t, s, 1), create(t, s, 2)
	old := filepath.Join(copyTree(t, cfg.Dir), slotsName, dirName(a.ID), stateName)
	save(t, s, a.ID, 2)
	save(t, s, a.ID, 3)

	restore(t, old, s.slotPath(a.ID, stateName))
	if err := check(s, a.ID); !errors.Is(err, sealed.ErrRollback) {
		t.Errorf("while the card runs: %v", err)
	}
	must(t, s.Close())
	s = openStore(t, cfg)
	if err := check(s, a.ID); !errors.Is(err, sealed.ErrRollback) {
		t.Errorf("after a restart: %v", err)
	}
	must(t, check(s, b.ID))
	if _, err := s.AdoptState(b.ID, "nothing is wrong"); !errors.Is(err, ErrCurrent) {
		t.Errorf("adopt what is current: %v", err)
	}
	epoch := s.Epoch()
	d, err := s.AdoptState(a.ID, "restored from a backup")
	must(t, err)
	if d.Reason != "restored from a backup" || s.Epoch() <= epoch {
		t.Errorf("%v, epoch %d after %d", d, s.Epoch(), epoch)
	}
	must(t, check(s, a.ID))
	save(t, s, a.ID, 2)
}

func TestStateSwappedBetweenSlots(t *testing.T) {
	cfg := newConfig(t)
	s := openStore(t, cfg)
	a, b := create(t, s, 1), create(t, s, 2)
	restore(t, s.slotPath(a.ID, stateName), s.slotPath(b.ID, stateName))
	if err := check(s, b.ID); !errors.Is(err, sealed.ErrForeign) {
		t.Errorf("check: %v", err)
	}
	if _, err := s.AdoptState(b.ID, "try anyway"); !errors.Is(err, sealed.ErrForeign) {
		t.Errorf("adopt: %v", err)
	}
	must(t, check(s, a.ID))
}

// A table that is set back would bring destroyed slots back and lose new ones.
func TestTableSetBack(t *testing.T) {
	cfg := newConfig(t)
	s := openStore(t, cfg)
	a := create(t, s, 1)
	must(t, s.Close())
	backup := copyTree(t, cfg.Dir)
	s = openStore(t, cfg)
	must(t, s.Remove(a.ID))
	must(t, s.RemoveFiles(a.ID))
	must(t, s.Close())
	restore(t, filepath.Join(backup, tableName), filepath.Join(cfg.Dir, tableName))
	restore(t, filepath.Join(backup, slotsName), filepath.Join(cfg.Dir, slotsName))
	if _, err := Open(cfg); !errors.Is(err, sealed.ErrRollback) {
		t.Fatalf("Open: %v", err)
	}
	s, adoptions, err := Adopt(cfg, "we want it back")
	must(t, err)
	defer s.Close()
	if len(adoptions) != 1 || len(s.Records()) != 1 {
		t.Errorf("adoptions %v, %d slots", adoptions, len(s.Records()))
	}
	if err := check(s, a.ID); !errors.Is(err, sealed.ErrRollback) {
		t.Errorf("the slot that was destroyed runs: %v", err)
	}
	_, err = s.AdoptState(a.ID, "this one too")
	must(t, err)
	must(t, check(s, a.ID))
}

// Slots come and go, and leave nothing in the anchor.
func TestDestroyedSlotsAreForgotten(t *testing.T) {
	cfg := newConfig(t)
	s := openStore(t, cfg)
	create(t, s, 1)
	var sizes []int64
	for range 3 {
		for n := range byte(20) {
			r := create(t, s, 2+n)
			save(t, s, r.ID, 2)
			must(t, s.Remove(r.ID))
			must(t, s.Advance())
			must(t, s.RemoveFiles(r.ID))
		}
		must(t, s.Close())
		info, err := os.Stat(filepath.Join(cfg.Dir, anchorName))
		must(t, err)
		sizes = append(sizes, info.Size())
		s = openStore(t, cfg)
	}
	if sizes[0] != sizes[2] || sizes[0] > 512 {
		t.Errorf("anchor has %d bytes, for one slot", sizes)
	}
	must(t, check(s, record(1).ID))
}

// moments copies the store's directory at each moment of f at which a kill would leave
// something else of the table.
func moments(t *testing.T, s *Store, f func(at func())) (copies []string) {
	at := func() { copies = append(copies, copyTree(t, s.dir)) }
	s.replace = func(path string, data []byte) error {
		at()
		defer at()
		return replaceFile(path, data)
	}
	defer mend(s)
	at()
	f(at)
	at()
	return copies
}

// A kill at any moment leaves a store that opens, in which the slot is there with its
// state, or is gone for good.
func TestKilledWhileDestroying(t *testing.T) {
	cfg := newConfig(t)
	s := openStore(t, cfg)
	stays, goes := create(t, s, 1), create(t, s, 2)
	must(t, s.Advance())
	first := copyTree(t, cfg.Dir)
	copies := moments(t, s, func(at func()) {
		must(t, s.Remove(goes.ID))
		at()
		must(t, s.Advance())
		at()
		must(t, s.RemoveFiles(goes.ID))
	})
	// Between record and increment.
	pending := copyTree(t, copies[len(copies)-1])
	restore(t, filepath.Join(first, counterName), filepath.Join(pending, counterName))
	for i, dir := range append(copies, pending) {
		cfg := Config{Dir: filepath.Join(t.TempDir(), "card"), Protection: FileProtection("")}
		restore(t, dir, cfg.Dir)
		for range 2 {
			s := openStore(t, cfg)
			must(t, check(s, stays.ID))
			switch n := len(s.Records()); {
			case n == 2:
				must(t, check(s, goes.ID))
			case n != 1 || i < 2:
				t.Errorf("moment %d: %d slots", i, n)
			default:
				if _, _, known := s.anchor.Newest(goes.ID); known {
					t.Errorf("moment %d: the anchor knows the slot that is gone", i)
				}
			}
			must(t, s.Close())
		}
		if i < len(copies)-2 {
			continue
		}
		// It was acknowledged: no file of the past brings it back.
		restore(t, filepath.Join(first, slotsName), filepath.Join(cfg.Dir, slotsName))
		s := openStore(t, cfg)
		if len(s.Records()) != 1 || len(s.Strays()) != 1 {
			t.Errorf("moment %d: %d slots, strays %v", i, len(s.Records()), s.Strays())
		}
		must(t, s.Close())
		restore(t, filepath.Join(first, tableName), filepath.Join(cfg.Dir, tableName))
		if _, err := Open(cfg); !errors.Is(err, sealed.ErrRollback) {
			t.Errorf("moment %d: Open with the table of before: %v", i, err)
		}
	}
}

// restored is a store as a whole set back to a backup, with the counter left.
func restored(t *testing.T) (Config, Record) {
	cfg := newConfig(t)
	s := openStore(t, cfg)
	a := create(t, s, 1)
	must(t, s.Close())
	backup := copyTree(t, cfg.Dir)
	s = openStore(t, cfg)
	save(t, s, a.ID, 2)
	must(t, s.Close())
	counter, err := os.ReadFile(filepath.Join(cfg.Dir, counterName))
	must(t, err)
	restore(t, backup, cfg.Dir)
	must(t, os.WriteFile(filepath.Join(cfg.Dir, counterName), counter, 0o600))
	return cfg, a
}

func TestStoreSetBackAsAWhole(t *testing.T) {
	cfg, a := restored(t)
	if _, err := Open(cfg); !errors.Is(err, sealed.ErrRollback) {
		t.Fatalf("Open: %v", err)
	}
	if _, _, err := Adopt(cfg, ""); err == nil {
		t.Fatal("adopted for no reason")
	}
	s, adoptions, err := Adopt(cfg, "disk was replaced")
	must(t, err)
	if len(adoptions) != 1 {
		t.Errorf("adoptions: %v", adoptions)
	}
	must(t, check(s, a.ID))
	save(t, s, a.ID, 2)
	must(t, s.Close())
	s, adoptions, err = Adopt(cfg, "again")
	must(t, err)
	defer s.Close()
	if len(adoptions) != 0 {
		t.Errorf("adopted what is current: %v", adoptions)
	}
}

func TestAnchorLost(t *testing.T) {
	cfg := newConfig(t)
	s := openStore(t, cfg)
	a := create(t, s, 1)
	epoch := s.Epoch()
	must(t, s.Close())
	must(t, os.Remove(filepath.Join(cfg.Dir, anchorName)))
	if _, err := Open(cfg); err == nil {
		t.Fatal("opened without an anchor")
	}
	s, _, err := Adopt(cfg, "record is lost")
	must(t, err)
	defer s.Close()
	if s.Epoch() <= epoch {
		t.Errorf("epoch %d after %d", s.Epoch(), epoch)
	}
	must(t, check(s, a.ID))
}

func TestAdoptMakesNoCard(t *testing.T) {
	cfg := newConfig(t)
	if _, _, err := Adopt(cfg, "typing error"); !errors.Is(err, ErrIncomplete) {
		t.Errorf("Adopt: %v", err)
	}
	openStore(t, cfg)
}
