// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
	"testing"

	"hwvtpm/firmware/sandbox"
)

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

func TestWorkerArgs(t *testing.T) {
	for _, tt := range []struct {
		args       string
		report, ok bool
	}{
		{"", false, false},
		{"--own-user", false, false},
		{"--worker", false, true},
		{"--worker --own-user", false, true},
		{"--worker --report", true, true},
		{"--worker --own-user --report", true, true},
		{"--worker --report --own-user", true, false},
		{"--worker --state", false, false},
	} {
		if report, ok := workerArgs(strings.Fields(tt.args)); report != tt.report || ok != tt.ok {
			t.Errorf("workerArgs(%q) = %t, %t, want %t, %t", tt.args, report, ok, tt.report, tt.ok)
		}
	}
}

// What shuts a worker in is a matter of its host, whose administrator should know.
func TestWorkerSaysWhatIsMissing(t *testing.T) {
	for _, tt := range []struct {
		has  sandbox.Status
		want []string // of each line
	}{
		{sandbox.Status{Landlock: 1, Seccomp: true, Locked: true}, nil},
		{sandbox.Status{Seccomp: true, Locked: true}, []string{"Landlock"}},
		{sandbox.Status{Landlock: 6, Seccomp: true}, []string{"not locked"}},
		{sandbox.Status{}, []string{"Landlock", "not locked"}},
	} {
		got := missing(tt.has)
		if !slices.EqualFunc(got, tt.want, func(line, word string) bool {
			return strings.HasPrefix(line, "info ") && strings.Contains(line, word)
		}) {
			t.Errorf("missing(%+v) = %q, want %q", tt.has, got, tt.want)
		}
	}
}
