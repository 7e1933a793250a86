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

// forbiddenSkips lists the tests that no tier ran and that no rule excuses.
func (r *results) forbiddenSkips() []string {
	var bad []string
	for n, res := range r.tests {
		allowed := func(re *regexp.Regexp) bool { return re.MatchString(res.reason) }
		if res.outcome == skipped && !slices.ContainsFunc(allowedSkips, allowed) {
			bad = append(bad, fmt.Sprintf("%s: %s", n, res.reason))
		}
	}
	slices.Sort(bad)
	return bad
}

// scope is how much of the tests was to run.
type scope struct {
	all    bool // every tier
	strict bool // what was skipped in all of them fails the run
}

// conclude lists the failures and, after a run of all tiers, what was skipped
// without excuse; and prints the closing count.
func (r *results) conclude(s scope) error {
	var count [3]int
	var failures, skips []string
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
	if s.all {
		skips = r.forbiddenSkips()
	}
	for _, f := range skips {
		fmt.Fprintln(r.out, "skipped:", f)
	}
	fmt.Fprintf(r.out, "%d passed, %d failed, %d skipped\n", count[passed], count[failed], count[skipped])
	var errs []error
	if count[failed] > 0 {
		errs = append(errs, errors.New("tests failed"))
	}
	if s.strict && len(skips) > 0 {
		errs = append(errs, fmt.Errorf("tests that this machine must run were skipped in every tier: %d", len(skips)))
	}
	if count[failed]+count[passed] == 0 {
		errs = append(errs, errors.New("no test ran"))
	}
	return errors.Join(errs...)
}
