// SPDX-License-Identifier: Apache-2.0

package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "nothing"
	}
	must(t, err)
	return string(b)
}

// points are those at which a write can end, and whether it is in place then.
var points = []struct {
	at     string
	placed bool
}{{"made", false}, {"written", false}, {"synced", false}, {"placed", true}, {"durable", true}}

var errCrash = errors.New("crash")

// A file is written as a whole or not at all, and can be written again.
func TestCrashes(t *testing.T) {
	for _, tc := range []struct {
		what, before string
		put          func(tmp, path string) error
	}{{"create", "nothing", putNew}, {"replace", "nothing", os.Rename}, {"replace", "old", os.Rename}} {
		for _, p := range points {
			path := filepath.Join(t.TempDir(), "file")
			if tc.before != "nothing" {
				must(t, os.WriteFile(path, []byte(tc.before), 0o600))
			}
			w := writer{func(at string) error {
				if at == p.at {
					return errCrash
				}
				return nil
			}}
			if err := w.write(path, []byte("new"), 0o600, tc.put); !errors.Is(err, errCrash) {
				t.Fatalf("%s, %s: %v", tc.what, p.at, err)
			}
			want := tc.before
			if p.placed {
				want = "new"
			}
			if got := read(t, path); got != want {
				t.Errorf("%s over %s, %s: %q, want %q", tc.what, tc.before, p.at, got, want)
			}
			err := writer{}.write(path, []byte("again"), 0o600, tc.put)
			if exists := tc.what == "create" && p.placed; exists != errors.Is(err, fs.ErrExist) || !exists && err != nil {
				t.Errorf("%s, %s: again: %v", tc.what, p.at, err)
			}
		}
	}
}

// left are the files in a directory but one.
func left(t testing.TB, path string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	must(t, err)
	for _, e := range entries {
		if e.Name() != filepath.Base(path) {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestModeAndLeftovers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	must(t, Create(path, []byte("one"), 0o600))
	must(t, Replace(path, []byte("two"), 0o644))
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode() != 0o644 || read(t, path) != "two" {
		t.Errorf("%q, mode %v", read(t, path), info.Mode())
	}
	if err := Create(path, []byte("three"), 0o600); !errors.Is(err, fs.ErrExist) || read(t, path) != "two" {
		t.Errorf("Create over a file: %v, %q", err, read(t, path))
	}
	if names := left(t, path); len(names) != 0 {
		t.Errorf("left: %q", names)
	}
}

// A name that is a link is what is replaced, not what it leads to.
func TestLinks(t *testing.T) {
	dir := t.TempDir()
	path, victim := filepath.Join(dir, "file"), filepath.Join(dir, "victim")
	must(t, os.WriteFile(victim, []byte("keep"), 0o600))
	must(t, os.Symlink(victim, path))
	if err := Create(path, []byte("new"), 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create over a link: %v", err)
	}
	must(t, Replace(path, []byte("new"), 0o600))
	if read(t, victim) != "keep" || read(t, path) != "new" {
		t.Errorf("victim %q, file %q", read(t, victim), read(t, path))
	}
}

// Of all who create a file at one time, one does.
func TestCreateOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() { errs[i] = Create(path, fmt.Append(nil, i), 0o600) })
	}
	wg.Wait()
	created := 0
	for i, err := range errs {
		switch {
		case err == nil:
			created++
			if got := read(t, path); got != fmt.Sprint(i) {
				t.Errorf("%d has created it, and %q is in it", i, got)
			}
		case !errors.Is(err, fs.ErrExist):
			t.Error(err)
		}
	}
	if created != 1 {
		t.Errorf("created %d times", created)
	}
}

func TestNoDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none", "file")
	for _, err := range []error{Create(path, nil, 0o600), Replace(path, nil, 0o600), SyncDir(filepath.Dir(path))} {
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "none") {
			t.Errorf("%v, want fs.ErrNotExist and the path", err)
		}
	}
}
