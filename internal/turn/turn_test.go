// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"runtime"
	"sync/atomic"
	"testing"
)

// TestRenew: a goroutine that begins another turn has let others have theirs.
func TestRenew(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var others atomic.Uint64
	var over atomic.Bool
	defer over.Store(true)
	go func() {
		for !over.Load() {
			others.Add(1)
			runtime.Gosched()
		}
	}()
	var turn Turn
	for renewed := 0; renewed < 5; {
		began, had := turn.began, others.Load()
		turn.Renew()
		if turn.began == began {
			continue
		}
		if renewed++; others.Load() == had {
			t.Errorf("turn %d began, and nobody else had run", renewed)
		}
		if d := turn.began - began; renewed > 1 && d < length {
			t.Errorf("turn %d began %v after the one before, want %v or more", renewed, d, length)
		}
	}
}

func TestRenewAllocatesNothing(t *testing.T) {
	var turn Turn
	if n := testing.AllocsPerRun(1000, turn.Renew); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
