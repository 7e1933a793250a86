// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// allowedSkips are reasons that hold on a machine that has all it can have.
var allowedSkips = []*regexp.Regexp{
	regexp.MustCompile(`^no coprocessor card: `),
	regexp.MustCompile(`^no hardware virtualization: `),
}

// logLine is what testing puts before a message of Skip: file and line.
var logLine = regexp.MustCompile(`^\s+\S+\.go:\d+: (.*)$`)

// skipReason finds the last message in a skipped test's output.
func skipReason(output string) string {
	reason := ""
	for line := range strings.Lines(output) {
		if m := logLine.FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil {
			reason = m[1]
		}
	}
	return reason
}

// forbiddenSkips reports the tests that no tier ran and that no rule excuses.
func (r *results) forbiddenSkips() error {
	var bad []string
	for n, res := range r.tests {
		allowed := func(re *regexp.Regexp) bool { return re.MatchString(res.reason) }
		if res.outcome == skipped && !slices.ContainsFunc(allowedSkips, allowed) {
			bad = append(bad, fmt.Sprintf("  %s: %s", n, res.reason))
		}
	}
	if len(bad) == 0 {
		return nil
	}
	slices.Sort(bad)
	return fmt.Errorf("%d tests were skipped in every tier:\n%s", len(bad), strings.Join(bad, "\n"))
}

// conclude lists the failures and prints the closing count.
func (r *results) conclude() error {
	var count [3]int
	var failures []string
	for n, res := range r.tests {
		count[res.outcome]++
		if res.outcome == failed {
			failures = append(failures, n.String())
		}
	}
	slices.Sort(failures)
	for _, f := range failures {
		fmt.Fprintln(r.out, "failed:", f)
	}
	fmt.Fprintf(r.out, "%d passed, %d failed, %d skipped\n", count[passed], count[failed], count[skipped])
	switch {
	case count[failed] > 0:
		return errors.New("tests failed")
	case count[passed] == 0:
		return errors.New("no test ran")
	}
	return nil
}
