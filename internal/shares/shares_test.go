// SPDX-License-Identifier: Apache-2.0

package shares

import (
	"strconv"
	"testing"
	"time"
)

// TestSharesAreForgotten: names without end are not kept without end, and who has used its
// share up does not get another one by that.
func TestSharesAreForgotten(t *testing.T) {
	l, now := New(2, time.Second), time.Now()
	for range 2 {
		if !l.Take("greedy", now) {
			t.Fatal("no share at all")
		}
	}
	done, ok := l.TakeAlone("busy", now)
	if !ok {
		t.Fatal("no share at all")
	}
	for i := range 2 * forgetAbove {
		l.Take(strconv.Itoa(i), now)
	}
	if l.Take("greedy", now) || l.Refused() != 1 {
		t.Error("a share that was used up is whole again")
	}
	now = now.Add(time.Hour)
	l.Take("one more", now)
	if n := len(l.known); n != 2 { // and the busy one
		t.Errorf("%d shares are known after an hour", n)
	}
	done()
	l.Take("greedy", now)
	if l.Take("greedy", now); l.Take("greedy", now.Add(-time.Hour)) {
		t.Error("a clock that was set back gave a share back")
	}
}
