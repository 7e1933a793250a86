// SPDX-License-Identifier: Apache-2.0

package store

import (
	"encoding/json"
	"fmt"
)

// Table is a table whose values are JSON of a T.
type Table[T any] struct {
	Name string
}

// Get gives a record, or ErrNotFound.
func (t Table[T]) Get(tx Tx, key string) (T, error) {
	var v T
	raw, err := tx.Get(t.Name, key)
	if err != nil {
		return v, fmt.Errorf("%s %q: %w", t.Name, key, err)
	}
	return v, t.decode(key, raw, &v)
}

func (t Table[T]) decode(key string, raw []byte, v *T) error {
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("store: %s %q is damaged: %w", t.Name, key, err)
	}
	return nil
}

// Put sets a record.
func (t Table[T]) Put(tx Tx, key string, v T) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("store: %s %q: %w", t.Name, key, err)
	}
	return tx.Put(t.Name, key, raw)
}

// Delete removes a record, if it is there.
func (t Table[T]) Delete(tx Tx, key string) error { return tx.Delete(t.Name, key) }

// page is how many items All reads at a time.
const page = 256

// All gives all records by ascending keys.
func (t Table[T]) All(tx Tx) ([]T, error) {
	all := []T{}
	for after := ""; ; {
		items, err := tx.Scan(t.Name, after, page)
		if err != nil {
			return nil, err
		}
		for _, i := range items {
			var v T
			if err := t.decode(i.Key, i.Value, &v); err != nil {
				return nil, err
			}
			all = append(all, v)
		}
		if len(items) < page {
			return all, nil
		}
		after = items[len(items)-1].Key
	}
}
