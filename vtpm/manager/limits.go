// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"sync"
	"time"
)

// limits shares the host's TPM among machines: each gets so many quotes in a row, and
// then one in each period, and one at a time. It knows the machines that have asked
// lately, of which there are no more than slots.
type limits struct {
	burst int
	every time.Duration

	mu    sync.Mutex // guards known
	known map[string]*share
}

// share is what a machine has left.
type share struct {
	left float64
	at   time.Time
	busy bool
}

func newLimits(burst int, every time.Duration) *limits {
	return &limits{burst: burst, every: every, known: map[string]*share{}}
}

// take takes one, if there is one left and none is under way. done ends it.
func (l *limits) take(vm string, now time.Time) (done func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.known[vm]
	if s == nil {
		s = &share{left: float64(l.burst), at: now}
		l.known[vm] = s
	}
	s.left, s.at = min(float64(l.burst), s.left+max(0, float64(now.Sub(s.at))/float64(l.every))), now
	if s.busy || s.left < 1 {
		return nil, false
	}
	s.left--
	s.busy = true
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		s.busy = false
	}, true
}

// keep forgets machines that are not there any more.
func (l *limits) keep(there func(vm string) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for vm, s := range l.known {
		if !s.busy && !there(vm) {
			delete(l.known, vm)
		}
	}
}
