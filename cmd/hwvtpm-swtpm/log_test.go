// SPDX-License-Identifier: Apache-2.0

package main

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A log that nobody has any more leaves standard error open, which is not its own.
func TestLogLeavesStandardErrorOpen(t *testing.T) {
	c := stderrLog()
	if _, err := c.open("test"); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		runtime.GC()
		time.Sleep(time.Millisecond) // files are closed after a collection
		if _, err := unix.FcntlInt(2, unix.F_GETFD, 0); err != nil {
			t.Fatalf("standard error after a collection: %v", err)
		}
	}
}
