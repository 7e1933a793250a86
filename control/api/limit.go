// SPDX-License-Identifier: Apache-2.0

package api

import (
	"sync"
	"time"
)

// limiter lets each identity do so many requests in a row, and then so many in a
// second. It knows a bounded number of identities, and forgets those that have
// their full allowance again.
type limiter struct {
	burst, rate float64 // requests; requests a second

	mu    sync.Mutex // guards what follows
	known map[string]*allowance
}

type allowance struct {
	left float64
	at   time.Time
}

const maxIdentities = 4096

func newLimiter(burst, rate float64) *limiter {
	return &limiter{burst: burst, rate: rate, known: map[string]*allowance{}}
}

// allow says whether an identity may go on now. When there are more identities
// than it can know, new ones may not: those it knows are not affected.
func (l *limiter) allow(who string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.known[who]
	if a == nil {
		if len(l.known) >= maxIdentities && !l.forgetLocked(now) {
			return false
		}
		a = &allowance{left: l.burst, at: now}
		l.known[who] = a
	}
	a.left, a.at = l.leftLocked(a, now), now
	if a.left < 1 {
		return false
	}
	a.left--
	return true
}

func (l *limiter) leftLocked(a *allowance, now time.Time) float64 {
	return min(l.burst, a.left+max(0, now.Sub(a.at).Seconds())*l.rate)
}

// forgetLocked drops who has nothing to be remembered for, and says if any.
func (l *limiter) forgetLocked(now time.Time) bool {
	before := len(l.known)
	for who, a := range l.known {
		if l.leftLocked(a, now) >= l.burst {
			delete(l.known, who)
		}
	}
	return len(l.known) < before
}
