// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"golang.org/x/sys/unix"
)

// RLIMIT_CORE does not hold for a core_pattern that is a pipe (core(5)), and
// commands with passwords pass through this process.
func TestHardenForbidsDumps(t *testing.T) {
	t.Cleanup(func() {
		if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
			t.Error(err)
		}
	})
	if err := harden(); err != nil {
		t.Logf("harden: %v", err) // not all of it works in a test that has cgo in it
	}
	if n, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || n != 0 {
		t.Errorf("dumpable = %d, %v, want 0", n, err)
	}
}
