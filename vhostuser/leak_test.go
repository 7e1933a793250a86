// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// openFDs counts this process's descriptors.
func openFDs(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skipf("cannot count descriptors: %v", err)
	}
	return len(entries)
}

// mappings counts the mappings of memfds in this process.
func mappings(t testing.TB) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Skipf("cannot count mappings: %v", err)
	}
	return strings.Count(string(b), "/memfd:")
}

// checkLeaks runs f and verifies that the descriptors, mappings and
// goroutines it made are gone soon after.
func checkLeaks(t *testing.T, f func()) {
	t.Helper()
	fds, maps, routines := openFDs(t), mappings(t), runtime.NumGoroutine()
	f()
	waitFor(t, func() bool {
		return openFDs(t) <= fds && mappings(t) <= maps && runtime.NumGoroutine() <= routines
	}, func() {
		t.Errorf("leak: descriptors %d -> %d, mappings %d -> %d, goroutines %d -> %d",
			fds, openFDs(t), maps, mappings(t), routines, runtime.NumGoroutine())
	})
}

// waitFor polls until ok, and calls fail if that does not happen.
func waitFor(t testing.TB, ok func() bool, fail func()) {
	t.Helper()
	for deadline := time.Now().Add(hangGuard); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			fail()
			return
		}
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	waitFor(t, ok, func() { t.Errorf("does not happen: %s", what) })
}
