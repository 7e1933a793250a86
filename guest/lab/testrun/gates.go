// SPDX-License-Identifier: Apache-2.0

package main

import (
	"path"
	"slices"
	"strings"
)

// noteGates remembers a test that says which gate is shut for it: "set GATE=1".
func (r *results) noteGates(n name, text string) {
	for _, t := range tiers {
		if t.gate == "" || n.test == "" || !strings.Contains(text, t.gate+"=1") {
			continue
		}
		if r.shutOut[t.gate] == nil {
			r.shutOut[t.gate] = map[string][]string{}
		}
		tests := r.shutOut[t.gate]
		top, _, _ := strings.Cut(n.test, "/") // by which go test -run chooses
		if !slices.Contains(tests[n.pkg], top) {
			tests[n.pkg] = append(tests[n.pkg], top)
		}
	}
}

// parts are the arguments by which go test runs the tier's packages. Tests that ran
// in an earlier tier without missing the gate don't run again: all that reads a gate
// says so where it is shut (guest/lab/houserules). A package of which no test has
// said anything, as when no other tier ran before, runs as a whole.
func (t tier) parts(packages []string, res *results) [][]string {
	var some, tests, whole []string
	for _, pkg := range packages {
		waiting := res.shutOut[t.gate][path.Join(module, pkg)]
		if len(waiting) == 0 {
			whole = append(whole, pkg)
			continue
		}
		some, tests = append(some, pkg), append(tests, waiting...)
	}
	var parts [][]string
	if len(some) > 0 {
		slices.Sort(tests)
		run := "-run=^(" + strings.Join(slices.Compact(tests), "|") + ")$"
		parts = append(parts, append([]string{run}, some...))
	}
	if len(whole) > 0 {
		parts = append(parts, whole)
	}
	return parts
}
