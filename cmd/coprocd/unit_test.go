// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hwvtpm/internal/cli/clitest"
)

// installUnits puts the units where they could be started from, as make install
// does, and gives their paths.
func installUnits(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	for _, program := range []string{"coprocd", "hwvtpm-engine"} {
		if err := os.WriteFile(filepath.Join(dir, program), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var paths []string
	for _, name := range []string{"coprocd.service", "coprocd.socket"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		text = bytes.ReplaceAll(text, []byte("@BINDIR@"), []byte(dir))
		text = bytes.ReplaceAll(text, []byte("@LIBEXECDIR@"), []byte(dir))
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

// TestUnitStartsTheProgram: the unit's command line is one that the program takes, also
// with the flags that its comment proposes.
func TestUnitStartsTheProgram(t *testing.T) {
	text, err := os.ReadFile(installUnits(t)[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("LISTEN_FDS", "1")
	command, shown := clitest.UnitFlags(t, string(text), "COPROCD_FLAGS")
	for _, more := range []string{"", shown} {
		args := strings.Fields(command + more)
		if _, err := parseArgs(args, &bytes.Buffer{}); err != nil {
			t.Errorf("%s: %v", args, err)
		}
	}
}

// TestUnitsVerify has systemd look at the units.
func TestUnitsVerify(t *testing.T) {
	clitest.VerifyUnits(t, "coprocd", installUnits(t)...)
}
