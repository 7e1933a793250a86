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
