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

var units = []string{"vtpm-guest-enrol.service", "vtpm-guest-enrol.timer"}

// installUnits puts the units where systemd may look at them, and a program to start.
func installUnits(t *testing.T) (paths []string) {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, text []byte, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, bytes.ReplaceAll(text, []byte("@BINDIR@"), []byte(dir)), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("vtpm-guest", []byte("#!/bin/sh\n"), 0o755)
	for _, name := range units {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, write(name, text, 0o644))
	}
	return paths
}

// TestUnitStartsTheProgram: the service's command line is one that the program takes, as
// it is and with the flags that its comment shows.
func TestUnitStartsTheProgram(t *testing.T) {
	text, err := os.ReadFile(units[0])
	if err != nil {
		t.Fatal(err)
	}
	command, shown := clitest.UnitFlags(t, string(text), "GUEST_FLAGS")
	for more, via := range map[string]string{"": defaultVia, shown: "vsock:2:9400"} {
		inv, err := parse(&console{}, strings.Fields(command+more))
		if err != nil {
			t.Errorf("with %q: %v", more, err)
		} else if inv.via != via || inv.dir != defaultDir || !inv.ifDue {
			t.Errorf("with %q: via %s, folder %s, if due %v", more, inv.via, inv.dir, inv.ifDue)
		}
	}
}

// TestUnitsVerify has systemd look at the units.
func TestUnitsVerify(t *testing.T) {
	clitest.VerifyUnits(t, "vtpm-guest", installUnits(t)...)
}
