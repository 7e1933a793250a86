// SPDX-License-Identifier: Apache-2.0

package shares

import (
	"sync"
	"sync/atomic"
	"time"
)

// Shares shares something among all who want it: each gets so many in a row, and then one
// in each period. It knows those who have asked lately: a share that nothing is taken of is
// as good as none. Its methods may be called from any goroutine.
type Shares struct {
	burst   int
	every   time.Duration
	refused atomic.Uint64

	mu    sync.Mutex // guards known
	known map[string]*share
}

// share is what somebody has left.
type share struct {
	left float64
	at   time.Time
	busy bool // one is under way
}

// New gives each burst in a row, and then one in each period.
func New(burst int, every time.Duration) *Shares {
	return &Shares{burst: burst, every: every, known: map[string]*share{}}
}

// Take takes one, if there is one left.
func (l *Shares) Take(key string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.takeLocked(key, now) != nil
}

// TakeAlone takes one, if there is one left and none is under way, until done.
func (l *Shares) TakeAlone(key string, now time.Time) (done func(), ok bool) {
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

func (l *Shares) takeLocked(key string, now time.Time) *share {
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
func (l *Shares) fill(s *share, now time.Time) {
	s.left, s.at = min(float64(l.burst), s.left+max(0, float64(now.Sub(s.at))/float64(l.every))), now
}

// Refused is how often there was none left, or one under way.
func (l *Shares) Refused() uint64 { return l.refused.Load() }

// forgetAbove is how many shares are known before those are forgotten that are whole.
const forgetAbove = 1024

func (l *Shares) forgetLocked(now time.Time) {
	if len(l.known) < forgetAbove {
		return
	}
	for key, s := range l.known {
		if l.fill(s, now); !s.busy && s.left >= float64(l.burst) {
			delete(l.known, key)
		}
	}
}
