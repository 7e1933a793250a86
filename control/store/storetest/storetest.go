// SPDX-License-Identifier: Apache-2.0

// Package storetest has the tests that every store.Store must pass.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"hwvtpm/control/store"
)

// Run runs the tests. open opens the store of a folder, where a second call after
// Close finds what the first one left.
func Run(t *testing.T, open func(t *testing.T, dir string) store.Store) {
	for name, test := range map[string]func(*testing.T, store.Store){
		"Values": testValues, "Scan": testScan, "Rollback": testRollback, "Isolation": testIsolation,
		"Copies": testCopies, "Misuse": testMisuse, "Cancel": testCancel, "Migrate": testMigrate,
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir())
			defer s.Close()
			test(t, s)
		})
	}
	t.Run("Reopen", func(t *testing.T) { testReopen(t, open) })
}

func update(t *testing.T, s store.Store, f func(store.Tx) error) {
	t.Helper()
	if err := s.Update(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, s store.Store, table, key, value string) {
	t.Helper()
	update(t, s, func(tx store.Tx) error { return tx.Put(table, key, []byte(value)) })
}

// get gives a value, or "-" if there is none.
func get(t *testing.T, s store.Store, table, key string) (value string) {
	t.Helper()
	err := s.View(t.Context(), func(tx store.Tx) error {
		raw, err := tx.Get(table, key)
		if errors.Is(err, store.ErrNotFound) {
			raw, err = []byte("-"), nil
		}
		value = string(raw)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func testValues(t *testing.T, s store.Store) {
	if v := get(t, s, "a", "k"); v != "-" {
		t.Errorf("new store: %q", v)
	}
	put(t, s, "a", "k", "1")
	put(t, s, "b", "k", "2")
	put(t, s, "a", "k", "3")
	put(t, s, "a", "empty", "")
	if a, b, e := get(t, s, "a", "k"), get(t, s, "b", "k"), get(t, s, "a", "empty"); a != "3" || b != "2" || e != "" {
		t.Errorf("got %q, %q, %q", a, b, e)
	}
	for range 2 { // the second finds nothing to delete
		update(t, s, func(tx store.Tx) error { return errors.Join(tx.Delete("a", "k"), tx.Delete("none", "k")) })
	}
	if v := get(t, s, "a", "k"); v != "-" {
		t.Errorf("after Delete: %q", v)
	}
}

func testScan(t *testing.T, s store.Store) {
	const n = 600
	update(t, s, func(tx store.Tx) error {
		for i := range n {
			if err := tx.Put("t", fmt.Sprintf("%04d", (i*7)%n), []byte{byte(i)}); err != nil {
				return err
			}
		}
		return errors.Join(tx.Put("t2", "0000", nil), tx.Put("s", "9999", nil))
	})
	view := func(after string, limit int) (items []store.Item) {
		err := s.View(t.Context(), func(tx store.Tx) (err error) {
			items, err = tx.Scan("t", after, limit)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return items
	}
	all := view("", n+1)
	if len(all) != n {
		t.Fatalf("Scan gives %d items, want %d", len(all), n)
	}
	for i, item := range all {
		if item.Key != fmt.Sprintf("%04d", i) {
			t.Fatalf("item %d is %q", i, item.Key)
		}
	}
	if got := view("0100", 2); len(got) != 2 || got[0].Key != "0101" {
		t.Errorf("Scan after 0100: %v", got)
	}
	if got := view("0100x", 1); len(got) != 1 || got[0].Key != "0101" {
		t.Errorf("Scan after a key that is not there: %v", got)
	}
	if got := view("0599", 5); len(got) != 0 {
		t.Errorf("Scan after the last: %v", got)
	}
}

func testRollback(t *testing.T, s store.Store) {
	put(t, s, "t", "k", "old")
	boom := errors.New("boom")
	err := s.Update(t.Context(), func(tx store.Tx) error {
		if err := errors.Join(tx.Put("t", "k", []byte("new")), tx.Put("fresh", "k", nil)); err != nil {
			return err
		}
		if v, err := tx.Get("t", "k"); string(v) != "new" || err != nil {
			t.Errorf("the transaction doesn't see its change: %q, %v", v, err)
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Errorf("Update: %v, want its function's error", err)
	}
	if a, b := get(t, s, "t", "k"), get(t, s, "fresh", "k"); a != "old" || b != "-" {
		t.Errorf("a failed update left %q, %q", a, b)
	}
}

func testIsolation(t *testing.T, s store.Store) {
	type counter struct{ N int }
	table, wg := store.Table[counter]{Name: "n"}, sync.WaitGroup{}
	const workers, rounds = 4, 25
	for range workers {
		wg.Go(func() {
			for range rounds {
				err := s.Update(t.Context(), func(tx store.Tx) error {
					c, err := table.Get(tx, "k")
					if err != nil && !errors.Is(err, store.ErrNotFound) {
						return err
					}
					c.N++
					return table.Put(tx, "k", c)
				})
				if err != nil {
					t.Errorf("Update: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if v := get(t, s, "n", "k"); v != fmt.Sprintf(`{"N":%d}`, workers*rounds) {
		t.Errorf("after %d increments: %s", workers*rounds, v)
	}
}

func testCopies(t *testing.T, s store.Store) {
	value := []byte("value")
	update(t, s, func(tx store.Tx) error {
		err := tx.Put("t", "k", value)
		value[0] = 'X'
		return err
	})
	var got []byte
	err := s.View(t.Context(), func(tx store.Tx) (err error) {
		got, err = tx.Get("t", "k")
		return err
	})
	if err != nil || string(got) != "value" {
		t.Errorf("got %q, %v: the store kept the caller's bytes", got, err)
	}
	clear(got)
	if v := get(t, s, "t", "k"); v != "value" {
		t.Errorf("got %q: the store gave its own bytes", v)
	}
}

func testMisuse(t *testing.T, s store.Store) {
	err := s.View(t.Context(), func(tx store.Tx) error {
		if err := tx.Put("t", "k", nil); !errors.Is(err, store.ErrReadOnly) {
			t.Errorf("Put in View: %v", err)
		}
		if err := tx.Delete("t", "k"); !errors.Is(err, store.ErrReadOnly) {
			t.Errorf("Delete in View: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	update(t, s, func(tx store.Tx) error {
		for _, err := range []error{tx.Put("", "k", nil), tx.Put("t", "", nil), tx.Delete("t", "")} {
			if !errors.Is(err, store.ErrKey) {
				t.Errorf("empty name: %v, want ErrKey", err)
			}
		}
		return nil
	})
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := s.Update(t.Context(), func(store.Tx) error { return nil }); !errors.Is(err, store.ErrClosed) {
		t.Errorf("Update after Close: %v, want ErrClosed", err)
	}
}

func testCancel(t *testing.T, s store.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	err := s.Update(ctx, func(tx store.Tx) error {
		cancel()
		return tx.Put("t", "k", nil)
	})
	if !errors.Is(err, context.Canceled) || get(t, s, "t", "k") != "-" {
		t.Errorf("a cancelled update: %v, and left %q", err, get(t, s, "t", "k"))
	}
}

func testMigrate(t *testing.T, s store.Store) {
	put(t, s, "format", "format", `{"version":1}`)
	put(t, s, "vms", "vm-1", `{"id":"vm-1","ek":"e1"}`)
	for range 2 {
		if err := store.Migrate(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	if v := get(t, s, "format", "format"); v != `{"version":2}` {
		t.Errorf("format %s", v)
	}
	if v := get(t, s, "owners", "e1"); v != `{"ek":"e1","vm":"vm-1"}` {
		t.Errorf("owner %s", v)
	}
	for _, bad := range []string{`{"version":99}`, `{"version":-1}`} {
		put(t, s, "format", "format", bad)
		if err := store.Migrate(t.Context(), s); !errors.Is(err, store.ErrVersion) {
			t.Errorf("Migrate of %s: %v, want ErrVersion", bad, err)
		}
	}
	put(t, s, "format", "format", "{")
	if err := store.Migrate(t.Context(), s); err == nil {
		t.Error("Migrate of a damaged store succeeds")
	}
}

func testReopen(t *testing.T, open func(t *testing.T, dir string) store.Store) {
	dir := t.TempDir()
	s := open(t, dir)
	put(t, s, "t", "k", "v")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	defer s.Close()
	if v := get(t, s, "t", "k"); v != "v" {
		t.Errorf("after opening again: %q", v)
	}
}
