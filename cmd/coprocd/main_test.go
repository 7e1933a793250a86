// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"testing"
)

func TestExitCodes(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	for _, tt := range []struct {
		args []string
		want int
	}{
		{[]string{"--version"}, 0},
		{[]string{"--help"}, 0},
		{nil, 2},
		{[]string{"--no-such-flag"}, 2},
		{[]string{"--vfio-user", "s"}, 2},
		{[]string{"--vfio-user", dir, "--state", dir}, 1}, // a folder is not replaced
		{[]string{"--vfio-user", dir + "/s", "--state", dir}, 0},
	} {
		if got := realMain(ended, tt.args); got != tt.want {
			t.Errorf("realMain(%q) = %d, want %d", tt.args, got, tt.want)
		}
	}
}
