// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"strings"
	"sync"
	"time"

	"hwvtpm/vtpm/door"
)

// limits shares what machines want among them: each gets so many in a row, and then one
// in each period. It knows the machines that have asked lately, of which there are no
// more than slots.
type limits struct {
	burst int
	every time.Duration

	mu    sync.Mutex        // guards known
	known map[string]*share // by shareOf
}

// share is what a machine has left.
type share struct {
	left float64
	at   time.Time
	busy bool // one is under way
}

// nobodys begins the keys of what is asked by channels that belong to nobody. No name
// begins so.
const nobodys = "?"

// shareOf says out of which share a caller takes what it wants for a machine. Whoever can
// reach a channel that belongs to nobody can ask there for any machine, also by sending an
// old quote of it again: that must not keep the machine's own channel waiting.
func shareOf(caller door.Caller, vm string) string {
	if caller.VM == "" {
		return nobodys + vm
	}
	return vm
}

func newLimits(burst int, every time.Duration) *limits {
	return &limits{burst: burst, every: every, known: map[string]*share{}}
}

// take takes one, if there is one left.
func (l *limits) take(key string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.takeLocked(key, now) != nil
}

// takeAlone takes one, if there is one left and none is under way, until done.
func (l *limits) takeAlone(key string, now time.Time) (done func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.known[key]; s != nil && s.busy {
		return nil, false
	}
	s := l.takeLocked(key, now)
	if s == nil {
		return nil, false
	}
	s.busy = true
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		s.busy = false
	}, true
}

func (l *limits) takeLocked(key string, now time.Time) *share {
	s := l.known[key]
	if s == nil {
		s = &share{left: float64(l.burst), at: now}
		l.known[key] = s
	}
	s.left, s.at = min(float64(l.burst), s.left+max(0, float64(now.Sub(s.at))/float64(l.every))), now
	if s.left < 1 {
		return nil
	}
	s.left--
	return s
}

// keep forgets machines that are not there any more.
func (l *limits) keep(there func(vm string) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, s := range l.known {
		if !s.busy && !there(strings.TrimPrefix(key, nobodys)) {
			delete(l.known, key)
		}
	}
}
