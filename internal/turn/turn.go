// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"runtime"
	"time"
)

// length is how long a turn may last. The scheduler looks every 10 ms at most, so half
// of what it allows is not enough.
const length = 4 * time.Millisecond

var start = time.Now()

// Turn is one goroutine's turn to run. The zero value is a turn that is over. It
// belongs to one goroutine at a time.
type Turn struct{ began time.Duration } // since start

// Renew ends the turn and begins another one if it has lasted long enough. It is to be
// called between two requests, best when nobody waits. Mostly it only reads the clock.
func (t *Turn) Renew() {
	if now := time.Since(start); t.began == 0 || now-t.began >= length {
		t.began = now
		runtime.Gosched()
	}
}
