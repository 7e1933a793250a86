// SPDX-License-Identifier: Apache-2.0

// Package bolt keeps a store in one file, by bbolt.
package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"hwvtpm/control/store"
)

// Store is a store in a file. One process has it open at a time.
type Store struct {
	db    *bbolt.DB
	close func() error
}

var _ store.Store = (*Store)(nil)

// lockWait is how long Open waits for a process that is just about to end.
const lockWait = 300 * time.Millisecond

// Open opens a file, 0600, or makes it. If another process has it open, that is
// store.ErrInUse.
func Open(path string) (*Store, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockWait})
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, fmt.Errorf("%w: %s", store.ErrInUse, path)
	} else if err != nil {
		return nil, fmt.Errorf("store: %s: %w", path, err)
	}
	return &Store{db: db, close: sync.OnceValue(db.Close)}, nil
}

// Close implements store.Store.
func (s *Store) Close() error { return s.close() }

// View implements store.Store.
func (s *Store) View(ctx context.Context, f func(store.Tx) error) error {
	return run(ctx, s.db.View, f)
}

// Update implements store.Store.
func (s *Store) Update(ctx context.Context, f func(store.Tx) error) error {
	return run(ctx, s.db.Update, f)
}

func run(ctx context.Context, begin func(func(*bbolt.Tx) error) error, f func(store.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := begin(func(t *bbolt.Tx) error {
		if err := f(tx{t}); err != nil {
			return err
		}
		return ctx.Err()
	})
	if errors.Is(err, berrors.ErrDatabaseNotOpen) {
		return store.ErrClosed
	}
	return err
}

// tx has a bucket for each table.
type tx struct{ *bbolt.Tx }

func (t tx) Get(table, key string) ([]byte, error) {
	if table == "" || key == "" {
		return nil, store.ErrKey
	}
	b := t.Bucket([]byte(table))
	if b == nil {
		return nil, store.ErrNotFound
	}
	v := b.Get([]byte(key))
	if v == nil {
		return nil, store.ErrNotFound
	}
	return bytes.Clone(v), nil
}

func (t tx) Put(table, key string, value []byte) error {
	switch {
	case table == "" || key == "":
		return store.ErrKey
	case !t.Writable():
		return store.ErrReadOnly
	}
	b, err := t.CreateBucketIfNotExists([]byte(table))
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if err := b.Put([]byte(key), bytes.Clone(value)); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

func (t tx) Delete(table, key string) error {
	switch {
	case table == "" || key == "":
		return store.ErrKey
	case !t.Writable():
		return store.ErrReadOnly
	}
	b := t.Bucket([]byte(table))
	if b == nil {
		return nil
	}
	if err := b.Delete([]byte(key)); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

func (t tx) Scan(table, after string, limit int) ([]store.Item, error) {
	if table == "" {
		return nil, store.ErrKey
	}
	b := t.Bucket([]byte(table))
	if b == nil {
		return nil, nil
	}
	var items []store.Item
	c := b.Cursor()
	k, v := c.Seek([]byte(after))
	if k != nil && string(k) == after {
		k, v = c.Next()
	}
	for ; k != nil && len(items) < limit; k, v = c.Next() {
		items = append(items, store.Item{Key: string(k), Value: bytes.Clone(v)})
	}
	return items, nil
}
