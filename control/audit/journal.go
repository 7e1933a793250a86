// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"hwvtpm/control/store"
)

var heads = store.Table[Head]{Name: "audit"}

const headKey = "head"

// Journal is a log whose head is kept in a store, so that lines cut off from its
// end are found. Its methods may be called from any goroutine.
type Journal struct {
	log   *Log
	store store.Store
	now   func() time.Time

	mu sync.Mutex // keeps the head in the store from going back
}

// OpenJournal opens a log that must reach the head in the store.
func OpenJournal(ctx context.Context, path string, s store.Store, now func() time.Time) (*Journal, error) {
	var known Head
	err := s.View(ctx, func(tx store.Tx) (err error) { known, err = heads.Get(tx, headKey); return err })
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	l, err := Open(path, known)
	if err != nil {
		return nil, err
	}
	return &Journal{log: l, store: s, now: now}, nil
}

// Record adds an event, and fails if it isn't on the disk. What was to be done is
// not to be shown to anybody then. A caller that went away does not stop it.
func (j *Journal) Record(ctx context.Context, e Event) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.log.Append(j.now(), e); err != nil {
		return err
	}
	err := j.store.Update(context.WithoutCancel(ctx), func(tx store.Tx) error { return heads.Put(tx, headKey, j.log.Head()) })
	if err != nil {
		return fmt.Errorf("audit: keep the head: %w", err)
	}
	return nil
}

// Close closes the log, not the store.
func (j *Journal) Close() error { return j.log.Close() }
