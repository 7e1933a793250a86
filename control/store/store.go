// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
)

var (
	// ErrNotFound is returned for a key that is not in its table.
	ErrNotFound = errors.New("store: not found")
	// ErrInUse is returned on opening a store that another process has open.
	ErrInUse = errors.New("store: another process has it open")
	// ErrVersion is returned for a store that a newer version of this program made.
	ErrVersion = errors.New("store: made by a newer version")
	// ErrReadOnly is returned for changes inside View.
	ErrReadOnly = errors.New("store: change in a transaction that reads")
	// ErrKey is returned for an empty key.
	ErrKey = errors.New("store: empty key or table")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("store: closed")
)

// Store is a set of tables. Its methods may be called from any goroutine.
type Store interface {
	// View runs f with one state of the store.
	View(ctx context.Context, f func(Tx) error) error
	// Update runs f and applies its changes, all of them or, if f gives an error
	// or anything else fails, none. Changes are durable when it returns. A store
	// that meets others' changes runs f again: f must have no effect but on the
	// transaction and on variables that it sets afresh.
	Update(ctx context.Context, f func(Tx) error) error
	// Close may be called more than once. It waits for running transactions.
	Close() error
}

// Tx is a transaction. It belongs to the goroutine and the call that it was
// given to. Reads see its own changes.
type Tx interface {
	// Get gives a copy of a value, or ErrNotFound.
	Get(table, key string) ([]byte, error)
	// Put sets a value.
	Put(table, key string, value []byte) error
	// Delete removes a key. One that isn't there is fine.
	Delete(table, key string) error
	// Scan gives up to limit items whose keys are greater than after, by
	// ascending bytes of their keys. The items are copies.
	Scan(table, after string, limit int) ([]Item, error)
}

// Item is a key with its value.
type Item struct {
	Key   string
	Value []byte
}
