// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"testing"
)

func TestUsageExitCodes(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want int
	}{
		{[]string{"--version"}, exitOK},
		{[]string{"--help"}, exitOK},
		{nil, exitUsage},
		{[]string{"--no-such-flag"}, exitUsage},
		{[]string{"--socket", "s"}, exitUsage},
		{[]string{"--store", "d"}, exitUsage},
		{[]string{"--store", "d", "--socket", "s", "more"}, exitUsage},
	} {
		if got := realMain(t.Context(), tt.args); got != tt.want {
			t.Errorf("realMain(%q) = %d, want %d", tt.args, got, tt.want)
		}
	}
}

func TestReport(t *testing.T) {
	cause := errors.New("cause")
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, exitOK},
		{cause, exitFailure},
		{fmt.Errorf("open: %w", storeError{cause}), exitStore},
	} {
		if got := report(tt.err); got != tt.want {
			t.Errorf("report(%v) = %d, want %d", tt.err, got, tt.want)
		}
	}
}
