// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
)

// format is where a store says which version of its records it has.
type format struct {
	Version int `json:"version"`
}

var formats = Table[format]{"format"}

const formatKey = "format"

// migrations bring a store from the version of their index to the next one. The
// first makes an empty store one of version 1, which has no more to do.
var migrations = []func(Tx) error{
	func(Tx) error { return nil },
	nameOwners,
}

// nameOwners makes the records of Owners, which stores of version 1 have none of.
func nameOwners(tx Tx) error {
	all, err := VMs.All(tx)
	if err != nil {
		return err
	}
	for _, v := range all {
		if err := Owners.Put(tx, v.EK, Owner{EK: v.EK, VM: v.ID}); err != nil {
			return err
		}
	}
	return nil
}

// Migrate brings the records of a store to this program's version, in one
// transaction. It gives ErrVersion if they are newer. Whoever opens a store for
// the server calls it first.
func Migrate(ctx context.Context, s Store) error {
	return s.Update(ctx, func(tx Tx) error {
		f, err := formats.Get(tx, formatKey)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if f.Version < 0 || f.Version > len(migrations) {
			return fmt.Errorf("%w: version %d, and this program knows up to %d", ErrVersion, f.Version, len(migrations))
		}
		for v, migrate := range migrations[f.Version:] {
			if err := migrate(tx); err != nil {
				return fmt.Errorf("store: migrate from version %d: %w", f.Version+v, err)
			}
		}
		if f.Version == len(migrations) {
			return nil
		}
		return formats.Put(tx, formatKey, format{Version: len(migrations)})
	})
}
