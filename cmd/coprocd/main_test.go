// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"hwvtpm/internal/cli"
)

func TestUsageExitCodes(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want int
	}{
		{[]string{"--version"}, cli.ExitOK},
		{[]string{"--help"}, cli.ExitOK},
		{nil, cli.ExitUsage},
		{[]string{"--no-such-flag"}, cli.ExitUsage},
		{[]string{"--socket", "s"}, cli.ExitUsage},
		{[]string{"--store", "d"}, cli.ExitUsage},
		{[]string{"--store", "d", "--socket", "s", "more"}, cli.ExitUsage},
	} {
		if got := realMain(t.Context(), tt.args); got != tt.want {
			t.Errorf("realMain(%q) = %d, want %d", tt.args, got, tt.want)
		}
	}
}
