// SPDX-License-Identifier: Apache-2.0

package main

import "testing"

func TestExitCodes(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want int
	}{
		{[]string{"--version"}, 0},
		{[]string{"--help"}, 0},
		{nil, 2},
		{[]string{"--no-such-flag"}, 2},
		{[]string{"--state", "x", "extra"}, 2},
	} {
		if got := realMain(tt.args); got != tt.want {
			t.Errorf("realMain(%q) = %d, want %d", tt.args, got, tt.want)
		}
	}
}
