// SPDX-License-Identifier: Apache-2.0

// Package clitest is for tests of what comes with programs, such as their units.
package clitest

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// VerifyUnits has systemd judge units, by their files. What it says is an error if it
// fails, or if it speaks of ours: it also speaks of units of the machine that these
// have to do with. An empty ours is never spoken of. Without systemd-analyze the test
// is skipped.
func VerifyUnits(t testing.TB, ours string, files ...string) {
	t.Helper()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("no systemd-analyze here: systemd has not judged the units")
	}
	out, err := exec.Command("systemd-analyze", append([]string{"verify", "--man=no"}, files...)...).CombinedOutput()
	if err != nil || ours != "" && strings.Contains(string(out), ours) {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// UnitFlags gives the arguments that the text of a unit starts its program with, which
// end with a variable for more, and those that its comment shows for the variable.
func UnitFlags(t testing.TB, text, variable string) (args, shown string) {
	t.Helper()
	find := func(pattern string) string {
		m := regexp.MustCompile("(?m)" + pattern).FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("the unit has no %s", pattern)
		}
		return m[1]
	}
	return find(`^ExecStart=\S+ (.*)\$` + variable + "$"), find("^#   " + variable + "=(.*)$")
}
