// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"sync"
	"time"
)

// enrolment is a challenge that a machine has yet to meet.
type enrolment struct {
	vm    string
	share string // by shareOf: nobody's challenge must not take the place of the machine's
	who   Credentials
	end   time.Time
}

// Bounds of challenges that wait. Each cost an exchange with the authority.
const (
	maxWaiting  = 1024
	waitingLife = 10 * time.Minute // the authority's own is shorter
)

// enrolments are the challenges that wait, so that nobody answers another's.
type enrolments struct {
	mu   sync.Mutex // guards byID
	byID map[string]enrolment
}

func newEnrolments() *enrolments { return &enrolments{byID: map[string]enrolment{}} }

// add notes a challenge; it takes the place of another of the same share, and, if
// there are too many, of one that somebody else waits for.
func (w *enrolments) add(id string, e enrolment, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for other, o := range w.byID {
		if o.share == e.share || now.After(o.end) || len(w.byID) >= maxWaiting {
			delete(w.byID, other)
		}
	}
	e.end = now.Add(waitingLife)
	w.byID[id] = e
}

// take gives a challenge, once. vm is whom the channel belongs to, or empty.
func (w *enrolments) take(id, vm string, now time.Time) (enrolment, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e, ok := w.byID[id]
	if !ok || vm != "" && e.vm != vm {
		return enrolment{}, false
	}
	delete(w.byID, id)
	return e, !now.After(e.end)
}
