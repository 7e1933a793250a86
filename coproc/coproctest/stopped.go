// SPDX-License-Identifier: Apache-2.0

package coproctest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// AwaitStopped waits until no thread of a process runs any more (proc(5), stat)
// after a SIGSTOP, which takes each at its next turn.
func AwaitStopped(t testing.TB, pid int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if err != nil || len(stats) == 0 {
			t.Fatalf("process %d has no threads: %v", pid, err)
		}
		running := slices.ContainsFunc(stats, func(path string) bool {
			b, _ := os.ReadFile(path) // a thread that has ended does not run
			_, rest, _ := bytes.Cut(b, []byte(") "))
			return len(rest) > 0 && rest[0] != 'T'
		})
		if !running {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d does not stop", pid)
		}
	}
}
