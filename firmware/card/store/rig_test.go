// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/sealed"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newConfig(t testing.TB) Config {
	return Config{Dir: filepath.Join(t.TempDir(), "card"), Protection: FileProtection("")}
}

func openStore(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := Open(cfg)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// seal makes a state as a slot's worker does.
func seal(t testing.TB, s *Store, id sealed.SlotID, generation uint64, plain string) (sealed.Label, []byte) {
	t.Helper()
	key, err := s.SlotKey(id)
	must(t, err)
	slot, err := sealed.NewSlot(id, key)
	must(t, err)
	l := sealed.Label{Slot: id, Kind: sealed.KindPermanent, Generation: generation, Epoch: s.Epoch()}
	blob, err := slot.Seal(nil, l.Kind, l.Generation, l.Epoch, []byte(plain))
	must(t, err)
	return l, blob
}

func record(n byte) Record {
	return Record{
		ID: sealed.SlotID{n, 1}, Name: fmt.Sprintf("slot-%d", n), AccessKey: [32]byte{n, 2},
		Keys: abi.DefaultKeys, Banks: abi.DefaultBanks, Created: 1700000000 + int64(n),
		EKs: []abi.EK{{Handle: 0x81010001, Name: bytes.Repeat([]byte{n}, 34)}, {Handle: 0x81010016, Name: bytes.Repeat([]byte{n}, 50)}},
	}
}

func create(t testing.TB, s *Store, n byte) Record {
	t.Helper()
	r := record(n)
	_, blob := seal(t, s, r.ID, 1, "first")
	r, err := s.Create(r, blob, nil, MaxSlots)
	must(t, err)
	return r
}

func save(t testing.TB, s *Store, id sealed.SlotID, generation uint64) {
	t.Helper()
	l, blob := seal(t, s, id, generation, fmt.Sprint("state ", generation))
	must(t, s.SaveState(l, blob))
}

// check opens a slot's state as opening the slot does.
func check(s *Store, id sealed.SlotID) error {
	l, err := s.openState(id)
	if err == nil {
		err = s.CheckState(l)
	}
	return err
}

// copyTree is a backup.
func copyTree(t testing.TB, from string) (to string) {
	t.Helper()
	to = filepath.Join(t.TempDir(), "copy")
	must(t, os.CopyFS(to, os.DirFS(from)))
	return to
}

// restore puts a backup in place of a file or directory.
func restore(t testing.TB, from, to string) {
	t.Helper()
	must(t, os.RemoveAll(to))
	info, err := os.Stat(from)
	must(t, err)
	if !info.IsDir() {
		b, err := os.ReadFile(from)
		must(t, err)
		must(t, os.WriteFile(to, b, 0o600))
		return
	}
	must(t, os.CopyFS(to, os.DirFS(from)))
	must(t, filepath.WalkDir(to, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return os.Chmod(path, 0o600)
	}))
}
