// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hwvtpm/internal/cli/clitest"
)

const template = "vhost-user-vtpm@.service"

// installUnit puts the template where an instance could be started from, as make
// install does, and gives the path of an instance.
func installUnit(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, program := range []string{"vhost-user-vtpm", "hwvtpm-libvirt-hook"} {
		if err := os.WriteFile(filepath.Join(dir, program), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(template)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.ReplaceAll(text, []byte("@BINDIR@"), []byte(dir))
	if err := os.WriteFile(filepath.Join(dir, template), text, 0o644); err != nil {
		t.Fatal(err)
	}
	// What the sockets' unit is, another test says.
	if err := os.WriteFile(filepath.Join(dir, "coprocd.socket"), []byte("[Socket]\nListenStream=/run/x\nAccept=yes\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "coprocd@.service"), []byte("[Service]\nExecStart="+dir+"/vhost-user-vtpm\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "vhost-user-vtpm@vm1.service")
}

// unitLines gives the values of a setting of the template, for the instance vm1.
func unitLines(t *testing.T, setting string) (values []string) {
	t.Helper()
	text, err := os.ReadFile(template)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.ReplaceAll(bytes.ReplaceAll(text, []byte("%i"), []byte("vm1")), []byte("%d"), []byte("/run/credentials"))
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, setting+"="); ok {
			values = append(values, strings.Trim(strings.TrimSpace(value), `"`))
		}
	}
	if len(values) == 0 {
		t.Fatalf("the unit has no %s", setting)
	}
	return values
}

// TestUnitStartsTheProgram: the template's command line is one that the program
// takes, also with the other face, and with more flags.
func TestUnitStartsTheProgram(t *testing.T) {
	defaults := map[string]string{}
	for _, setting := range unitLines(t, "Environment") {
		name, value, _ := strings.Cut(setting, "=")
		defaults[name] = value
	}
	for name, file := range map[string]map[string]string{
		"as it is":   {},
		"other face": {"VTPM_FACE": "--tpm-emulator-socket /run/hwvtpm/vm/vm1/vtpm.sock"},
		"more flags": {"VTPM_FLAGS": "--packed off --log-level debug --metrics unix:/run/hwvtpm/vm/vm1/metrics.sock"},
		"no monitor": {"VTPM_FACE": "--socket-path /run/x.sock --reset-policy keep"},
	} {
		t.Run(name, func(t *testing.T) {
			env := maps.Clone(defaults)
			maps.Copy(env, file)
			command := os.Expand(unitLines(t, "ExecStart")[0], func(name string) string { return env[name] })
			cfg, err := parseArgs(strings.Fields(command)[1:], &bytes.Buffer{})
			if err != nil {
				t.Fatalf("%s: %v", command, err)
			}
			if cfg.slot != "vm1" || cfg.slotKey != "/run/credentials/key" || cfg.socketMode != 0o660 {
				t.Errorf("%s: %+v", command, cfg)
			}
		})
	}
}

// TestUnitVerifies has systemd look at the template.
func TestUnitVerifies(t *testing.T) {
	clitest.VerifyUnits(t, "vhost-user-vtpm", installUnit(t))
}
