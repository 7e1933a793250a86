// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"flag"
	"strings"
	"testing"
)

func TestParseArgs(t *testing.T) {
	for _, tc := range []struct {
		args string
		bad  string // part of the error, or empty
	}{
		{"hook -- vm1 prepare begin -", ""},
		{"hook --user qemu --group qemu --systemd off -- -vm prepare begin -", ""},
		{"hook -- vm1 prepare", "takes 4 words"},
		{"hook --slot vm1 -- vm1 prepare begin -", "does not take --slot"},
		{"hook --systemd on -- vm1 prepare begin -", "--systemd"},
		{"hook --run-dir run -- vm1 prepare begin -", "--run-dir"},
		{"hook --run-dir /run/a,b -- vm1 prepare begin -", "--run-dir"},
		{"xml --slot vm1", ""},
		{"xml --slot vm1 --face emulator", ""},
		{"xml --slot vm1 --face crb", "--face"},
		{"xml", "name of a slot"},
		{"xml --slot ../vm1", "name of a slot"},
		{"recover vm1", ""},
		{"recover --if-lost vm1", ""},
		{"recover", "takes 1 words"},
		{"", "give a command"},
		{"start vm1", "give a command"},
	} {
		t.Run(tc.args, func(t *testing.T) {
			_, err := parseArgs(strings.Fields(tc.args), &bytes.Buffer{})
			if tc.bad == "" && err != nil || tc.bad != "" && (err == nil || !strings.Contains(err.Error(), tc.bad)) {
				t.Errorf("error %v, want %q", err, tc.bad)
			}
		})
	}
}

// TestHelpNamesAllFlags: the help is the documentation, and the manual page.
func TestHelpNamesAllFlags(t *testing.T) {
	var out bytes.Buffer
	if _, err := parseArgs([]string{"--help"}, &out); !errors.Is(err, flag.ErrHelp) {
		t.Fatalf("--help: %v", err)
	}
	new(config).flags().VisitAll(func(f *flag.Flag) {
		if !strings.Contains(out.String(), "--"+f.Name) {
			t.Errorf("the help says nothing of --%s", f.Name)
		}
	})
}
