// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hwvtpm/internal/cli/clitest"
)

const unit = "vtpm-hostd.service"

// TestUnit: the unit's command line, with the flags that its comment shows, is one that
// the program takes, and systemd finds nothing wrong with the unit.
func TestUnit(t *testing.T) {
	dir := t.TempDir()
	raw, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(raw), "@BINDIR@", dir)
	command, shown := clitest.UnitFlags(t, text, "HOSTD_FLAGS")
	args := strings.ReplaceAll(command+shown, "--backend-group hwvtpm --guest-dir", "--guest-dir") // groups of an installed host
	args = strings.ReplaceAll(args, "--guest-group kvm", "")
	if cfg, err := parseArgs(strings.Fields(args), io.Discard); err != nil || cfg.name != "host-1" {
		t.Errorf("%s: %+v, %v", args, cfg, err)
	}
	for name, content := range map[string]string{unit: text, "coprocd.socket": "[Socket]\nListenStream=/run/x\nAccept=yes\n",
		"coprocd@.service": "[Service]\nExecStart=" + dir + "/vtpm-hostd\n", "vtpm-hostd": "#!/bin/sh\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	clitest.VerifyUnits(t, "vtpm-hostd.service:", filepath.Join(dir, unit))
}
