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
		{"hook --hostd /run/h --host-pcrs off -- vm1 prepare begin -", ""},
		{"xml --slot vm1 --hostd /run/h", "--hostd"},
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

// TestFaceFlags: what is the same for all machines, and what is not.
func TestFaceFlags(t *testing.T) {
	c := config{slot: "vm1", face: faceVirtio, runDir: "/run/x"}
	if got, want := c.faceFlags(), "--socket-path /run/x/vm/vm1/vtpm.sock --qmp /run/x/vm/vm1/qmp.sock"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	c.face, c.hostd, c.hostPCR = faceEmulator, "/run/h", "map"
	if got, want := c.faceFlags(), "--tpm-emulator-socket /run/x/vm/vm1/vtpm.sock --hostd /run/h --host-pcrs map"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	for _, word := range []string{"a b", "a\tb", "$a", "a\\"} {
		if _, err := parseArgs([]string{"hook", "--hostd", word, "--", "vm1", "prepare", "begin", "-"}, &bytes.Buffer{}); err == nil {
			t.Errorf("--hostd %q is taken", word)
		}
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
