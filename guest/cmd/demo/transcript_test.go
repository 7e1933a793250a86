// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"strings"
	"testing"
)

func TestTranscript(t *testing.T) {
	for _, tc := range []struct {
		terminal   bool
		good, fail string
	}{{false, "ok:", "FAILED:"}, {true, "✓", "✗"}} {
		var b strings.Builder
		out := &transcript{w: &b, terminal: tc.terminal}
		out.step("First")
		out.command("host$", "true")
		out.output("a\nb\nc\nd\ne\nf\ng\n")
		out.held("it is %d", 1)
		out.step("Second")
		out.output("a\nb\nc\nd\ne\nf\ng\nh\n" + strings.Repeat("x", 100))
		out.output("")
		out.failed(errors.New("no"))
		want := "\n 1. First\n    host$ true\n" + // seven lines: as short as six and a note
			"      a\n      b\n      c\n      d\n      e\n      f\n      g\n    " + tc.good + " it is 1\n" +
			"\n 2. Second\n      a\n      b\n      c\n      d\n      e\n      f\n      ... (3 more lines)\n    " + tc.fail + " no\n"
		if b.String() != want {
			t.Errorf("terminal %v: got %q, want %q", tc.terminal, b.String(), want)
		}
		if out.checks != 1 {
			t.Errorf("%d checks counted, want 1", out.checks)
		}
	}
}

func TestShorten(t *testing.T) {
	for in, want := range map[string]string{"": "", "äöüäö": "äöüäö", "äöüäöü": "äö..."} {
		if got := shorten(in, 5); got != want {
			t.Errorf("shorten(%q, 5) = %q, want %q", in, got, want)
		}
	}
}
