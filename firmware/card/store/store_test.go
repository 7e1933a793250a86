// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hwvtpm/firmware/sealed"
)

func TestStoreComesBackAsItWas(t *testing.T) {
	cfg := newConfig(t)
	s := openStore(t, cfg)
	if !s.Fresh() {
		t.Error("a new store says that it is not")
	}
	for n := range byte(5) {
		create(t, s, n)
	}
	must(t, s.Remove(record(2).ID))
	must(t, s.Advance())
	must(t, s.RemoveFiles(record(2).ID))
	must(t, s.SetLocked(record(3).ID, true))
	if r := create(t, s, 9); r.Number != 2 {
		t.Errorf("new slot has number %d, want the lowest free one, 2", r.Number)
	}
	want, key := s.Records(), s.Identity()
	must(t, s.Close())
	must(t, s.Close())

	s = openStore(t, cfg)
	if d := cmp.Diff(want, s.Records()); d != "" {
		t.Errorf("records differ (-before +after):\n%s", d)
	}
	if !s.Records()[3].Locked || s.Fresh() || !key.Equal(s.Identity()) || len(s.Strays()) != 0 {
		t.Errorf("locked %v, fresh %v, strays %v, or another identity", s.Records()[3].Locked, s.Fresh(), s.Strays())
	}
	for _, r := range s.Records() {
		must(t, check(s, r.ID))
	}
	if err := check(s, record(2).ID); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("state of a slot that was removed: %v", err)
	}
}

func TestCreateRefuses(t *testing.T) {
	s := openStore(t, newConfig(t))
	create(t, s, 1)
	r := record(2)
	r.Name = record(1).Name
	_, blob := seal(t, s, r.ID, 1, "x")
	if _, err := s.Create(r, blob, nil, MaxSlots); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second slot of a name: %v", err)
	}
	r = record(2)
	r.AccessKey = record(1).AccessKey
	if _, err := s.Create(r, blob, nil, MaxSlots); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second slot of an access key: %v", err)
	}
	r = record(2)
	if _, err := s.Create(r, blob, nil, 1); !errors.Is(err, ErrFull) {
		t.Errorf("one slot too many: %v", err)
	}
	_, foreign := seal(t, s, record(3).ID, 1, "x")
	if _, err := s.Create(r, foreign, nil, MaxSlots); !errors.Is(err, sealed.ErrForeign) {
		t.Errorf("with another slot's state: %v", err)
	}
	r.Name = "../x"
	if _, err := s.Create(r, blob, nil, MaxSlots); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("with a bad name: %v", err)
	}
	entries, err := os.ReadDir(filepath.Join(s.dir, slotsName))
	must(t, err)
	if len(entries) != 1 || len(s.Records()) != 1 {
		t.Errorf("%d directories, %d slots; want what was there before", len(entries), len(s.Records()))
	}
}

func TestOneProcessAtATime(t *testing.T) {
	cfg := newConfig(t)
	s := openStore(t, cfg)
	if _, err := Open(cfg); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "process ") {
		t.Errorf("second Open: %v", err)
	}
	must(t, s.Close())
	openStore(t, cfg)
}

func TestDirectoryMustBeOurs(t *testing.T) {
	for name, spoil := range map[string]func(dir string) error{
		"open to others": func(dir string) error { return os.Chmod(dir, 0o750) },
		"symbolic link":  func(dir string) error { return errors.Join(os.Rename(dir, dir+".r"), os.Symlink(dir+".r", dir)) },
		"slots through one": func(dir string) error {
			d := filepath.Join(dir, slotsName)
			return errors.Join(os.Rename(d, d+".r"), os.Symlink(d+".r", d))
		},
		"not a directory": func(dir string) error { return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)) },
		"table readable":  func(dir string) error { return os.Chmod(filepath.Join(dir, tableName), 0o644) },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := newConfig(t)
			must(t, openStore(t, cfg).Close())
			must(t, spoil(cfg.Dir))
			if s, err := Open(cfg); err == nil {
				s.Close()
				t.Error("opened")
			}
		})
	}
}

// Each file is lost, cut, changed, or comes from elsewhere: none of it is ever
// made good by something new.
func TestDamageIsAHardError(t *testing.T) {
	for _, name := range []string{keyName, counterName, anchorName, tableName, identityName, slotsName} {
		for what, spoil := range map[string]func(path string) error{
			"missing": os.RemoveAll,
			"empty":   func(path string) error { return os.Truncate(path, 0) },
			"cut":     func(path string) error { return cut(path) },
			"flipped": flip,
		} {
			if name == slotsName && what != "missing" {
				continue
			}
			t.Run(name+" "+what, func(t *testing.T) {
				cfg := newConfig(t)
				s := openStore(t, cfg)
				create(t, s, 1)
				must(t, s.Close())
				must(t, spoil(filepath.Join(cfg.Dir, name)))
				before := tree(t, cfg.Dir)
				s, err := Open(cfg)
				if err == nil {
					s.Close()
					t.Fatal("opened")
				}
				if d := cmp.Diff(before, tree(t, cfg.Dir)); d != "" {
					t.Errorf("refusing changed the store:\n%s", d)
				}
			})
		}
	}
}

func cut(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return os.Truncate(path, info.Size()/2)
}

func flip(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	b[len(b)-20] ^= 4
	return os.WriteFile(path, b, 0o600)
}

// tree is all files but the lock, with their content.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == lockName {
			return err
		}
		b, err := os.ReadFile(path)
		files[path] = string(b)
		return err
	}))
	return files
}

func TestWrongKey(t *testing.T) {
	cfg := newConfig(t)
	must(t, openStore(t, cfg).Close())
	other := newConfig(t)
	must(t, openStore(t, other).Close())
	restore(t, filepath.Join(other.Dir, keyName), filepath.Join(cfg.Dir, keyName))
	if _, err := Open(cfg); !errors.Is(err, sealed.ErrWrongKey) {
		t.Errorf("Open: %v", err)
	}
	if _, _, err := Adopt(cfg, "try anyway"); !errors.Is(err, sealed.ErrWrongKey) {
		t.Errorf("Adopt: %v", err)
	}
}

func TestKeyFileOutside(t *testing.T) {
	cfg := newConfig(t)
	cfg.Protection = FileProtection(filepath.Join(t.TempDir(), "csk"))
	must(t, openStore(t, cfg).Close())
	openStore(t, cfg)
	if _, err := os.Stat(filepath.Join(cfg.Dir, keyName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("key in the store as well: %v", err)
	}
	second := Config{Dir: filepath.Join(t.TempDir(), "second"), Protection: cfg.Protection}
	openStore(t, second) // a key that was prepared is taken
}

func TestStraysAreKept(t *testing.T) {
	cfg := newConfig(t)
	must(t, openStore(t, cfg).Close())
	stray := filepath.Join(cfg.Dir, slotsName, "0123")
	must(t, os.Mkdir(stray, 0o700))
	must(t, os.WriteFile(filepath.Join(cfg.Dir, "table.1.tmp"), nil, 0o600))
	s := openStore(t, cfg)
	if d := cmp.Diff([]string{filepath.Join(slotsName, "0123")}, s.Strays()); d != "" {
		t.Error(d)
	}
	if _, err := os.Stat(stray); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(cfg.Dir, "table.1.tmp")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what a write left is not removed: %v", err)
	}
}
