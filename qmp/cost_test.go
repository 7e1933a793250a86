// SPDX-License-Identifier: Apache-2.0

package qmp

import (
	"runtime"
	"strings"
	"testing"
)

// Decoded JSON is many times its text. A peer that sends the longest event with the
// costliest data must not take more memory than the machine of one guest can spare.
func TestLongestEventIsAffordable(t *testing.T) {
	const most = 128 << 20 // of all allocations; less of it is alive at any moment
	for name, element := range map[string]string{"objects": "{},", "numbers": "0,"} {
		head, tail := `{"event": "RESET", "data": {"a": [`, `0]}}`
		line := head + strings.Repeat(element, (MaxLine-len(head)-len(tail))/len(element)) + tail
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := parseMessage([]byte(line)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		runtime.ReadMemStats(&after)
		if cost := after.TotalAlloc - before.TotalAlloc; cost > most {
			t.Errorf("%s: an event of %d bytes takes %d MiB", name, len(line), cost>>20)
		}
	}
}
