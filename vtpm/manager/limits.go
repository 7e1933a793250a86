// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"sync"
	"sync/atomic"
	"time"

	"hwvtpm/vtpm/door"
)

// limits shares what machines want among them: each gets so many in a row, and then one
// in each period. It knows the machines that have asked lately: a share that nothing is
// taken of is as good as none.
type limits struct {
	burst   int
	every   time.Duration
	refused atomic.Uint64

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
		l.forgetLocked(now)
		s = &share{left: float64(l.burst), at: now}
		l.known[key] = s
	}
	l.fill(s, now)
	if s.busy || s.left < 1 {
		l.refused.Add(1)
		return nil
	}
	s.left--
	return s
}

// fill gives a share what time has given back. A clock that is set back gives nothing.
func (l *limits) fill(s *share, now time.Time) {
	s.left, s.at = min(float64(l.burst), s.left+max(0, float64(now.Sub(s.at))/float64(l.every))), now
}

// forgetAbove is how many shares are known before those are forgotten that are whole.
const forgetAbove = 1024

func (l *limits) forgetLocked(now time.Time) {
	if len(l.known) < forgetAbove {
		return
	}
	for key, s := range l.known {
		if l.fill(s, now); !s.busy && s.left >= float64(l.burst) {
			delete(l.known, key)
		}
	}
}
