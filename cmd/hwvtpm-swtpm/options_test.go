// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"hwvtpm/internal/cli"
	"hwvtpm/vtpm/hostdoor"
)

// quietConsole is a console without an environment.
func quietConsole() (*console, *bytes.Buffer) {
	var out bytes.Buffer
	return &console{in: strings.NewReader(""), out: &out, err: &out, getenv: func(string) string { return "" }}, &out
}

// What libvirt 9.0 gives to swtpm and swtpm_setup must be understood whole.
func TestLibvirtCommandLines(t *testing.T) {
	con, _ := quietConsole()
	c, err := parseSocket(con, []string{"--ctrl", "type=unixio,path=/run/s.sock,mode=0600",
		"--tpmstate", "dir=/var/lib/x/tpm2,mode=0600", "--log", "file=/var/log/x.log", "--terminate", "--tpm2"})
	if err != nil {
		t.Fatal(err)
	}
	if c.state != "/var/lib/x/tpm2" || c.ctrl.address != "/run/s.sock" || c.ctrl.mode != 0o600 || !c.terminate || c.log.file != "/var/log/x.log" {
		t.Errorf("understood as %+v", c)
	}
	s, err := parseSetup(con, []string{"--tpm2", "--tpm-state", "/d", "--vmid", "vm:5b1f6a2e-0d53-4f0e-9d6b-6f2a1b7d8c90",
		"--logfile", "/l", "--createek", "--create-ek-cert", "--create-platform-cert", "--lock-nvram", "--not-overwrite"})
	if err != nil {
		t.Fatal(err)
	}
	if s.tpm.keys != defaultKeys || !s.tpm.certs || !s.notOverwrite || s.log.file != "/l" {
		t.Errorf("understood as %+v", s)
	}
}

// An option that can't be served is refused, and the message names it.
func TestRefusedByName(t *testing.T) {
	con, _ := quietConsole()
	socket := []string{"--tpm2", "--tpmstate", "dir=/d", "--ctrl", "type=unixio,path=/s"}
	for _, more := range [][]string{
		{"--key", "pwdfd=3"}, {"--key=file=k"}, {"--migration-key", "fd=3"}, {"--migration", "incoming"}, {"--print-states"},
		{"--seccomp", "action=kill"}, {"--locality", "allow-set-locality"}, {"--flags", "startup-deactivated"},
		{"--ctrl", "type=unixio,path=/s,ifname=eth0"}, {"--tpmstate", "backend-uri=file:///f"}, {"--pid", "path=/x"},
		{"--log", "file=x,level=loud"}, {"--unheard-of"}, {"--terminate=yes"}, {"stray"}, {"--server", "type=tcp"},
	} {
		_, err := parseSocket(con, slices.Concat(socket, more))
		if name, _, _ := strings.Cut(more[0], "="); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("swtpm socket %q: error %v, want one that names %s", more, err, name)
		}
	}
	setup := []string{"--tpm2", "--tpm-state", "/d"}
	for _, more := range [][]string{
		{"--keyfile", "k"}, {"--take-ownership"}, {"--write-ek-cert-files", "d"}, {"--allow-signing"},
		{"--config", "f"}, {"--pcr-banks", "sm3"}, {"--rsa-keysize", "3072"}, {"--overwrite", "--not-overwrite"},
	} {
		if _, err := parseSetup(con, slices.Concat(setup, more)); err == nil || !strings.Contains(err.Error(), more[0]) {
			t.Errorf("swtpm_setup %q: error %v, want one that names %s", more, err, more[0])
		}
	}
}

func TestTPM12IsRefused(t *testing.T) {
	con, _ := quietConsole()
	if _, err := parseSocket(con, []string{"--tpmstate", "dir=/d", "--ctrl", "type=tcp,port=1"}); err == nil || !strings.Contains(err.Error(), "TPM 1.2") {
		t.Errorf("swtpm without --tpm2: %v", err)
	}
	if _, err := parseSetup(con, []string{"--tpm-state", "/d"}); err == nil || !strings.Contains(err.Error(), "TPM 1.2") {
		t.Errorf("swtpm_setup without --tpm2: %v", err)
	}
}

// What is said to be supported is what libvirt goes by: nothing that it would
// then use may be said too much.
func TestCapabilities(t *testing.T) {
	for _, args := range [][]string{
		{"swtpm", "socket", "--tpm2", "--print-capabilities"}, {"swtpm", "socket", "--print-capabilities"},
		{"swtpm_setup", "--tpm2", "--print-capabilities"}, {"hwvtpm-swtpm", "swtpm_setup", "--print-capabilities"},
	} {
		con, out := quietConsole()
		if code := realMain(t.Context(), con, args); code != 0 {
			t.Fatalf("%q: exit code %d: %s", args, code, out)
		}
		var caps struct {
			Type     string
			Features []string
		}
		if err := json.Unmarshal(out.Bytes(), &caps); err != nil {
			t.Fatalf("%q: %v", args, err)
		}
		for _, not := range []string{"tpm-1.2", "cmdarg-pwd-fd", "cmdarg-pwdfile-fd", "cmdarg-key-fd", "cmdarg-migration", "cmdarg-print-states"} {
			if slices.Contains(caps.Features, not) {
				t.Errorf("%q promises %s", args, not)
			}
		}
		if !slices.Contains(caps.Features, "tpm-2.0") || !strings.HasPrefix(caps.Type, "swtpm") {
			t.Errorf("%q says %s", args, out)
		}
	}
}

// A directory that swtpm has used must not get a new TPM beside the old one.
func TestForeignState(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, swtpmFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	con, out := quietConsole()
	con.getenv = func(name string) string {
		return map[string]string{"HWVTPM_SOCKET": "none"}[name]
	}
	for _, args := range [][]string{
		{"swtpm", "socket", "--tpm2", "--tpmstate", "dir=" + dir, "--ctrl", "type=unixio,path=" + dir + "/s"},
		{"swtpm_setup", "--tpm2", "--tpm-state", dir, "--createek"},
		{"swtpm_setup", "--tpm2", "--tpm-state", dir, "--overwrite"},
	} {
		out.Reset()
		if code := realMain(t.Context(), con, args); code != cli.ExitFailure || !strings.Contains(out.String(), "vtpmctl import-swtpm") {
			t.Errorf("%q: exit code %d: %s", args, code, out)
		}
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "*")); len(names) != 1 {
		t.Errorf("the directory has now %q", names)
	}
}

// A directory whose card is gone must not get a new TPM under the old name.
func TestLostState(t *testing.T) {
	dir := t.TempDir()
	if err := writePlace(dir, place{}); err != nil {
		t.Fatal(err)
	}
	if _, err := readPlace(dir); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("readPlace: %v, want an error about the missing state", err)
	}
}

func TestSlotName(t *testing.T) {
	const id = "5b1f6a2e-0d53-4f0e-9d6b-6f2a1b7d8c90"
	for _, tc := range []struct{ vmID, dir, want string }{
		{"vm:" + id, "/x", id},
		{"a name:" + strings.ToUpper(id), "/x", id},
		{"", "/var/lib/libvirt/swtpm/" + id + "/tpm2", id},
		{"plain", "/x", "swtpm-"},
	} {
		if got := slotName(tc.vmID, tc.dir); !strings.HasPrefix(got, tc.want) {
			t.Errorf("slotName(%q, %q) = %q, want %q", tc.vmID, tc.dir, got, tc.want)
		}
	}
}

// TestHostSettings: a machine here may have firmware that measures.
func TestHostSettings(t *testing.T) {
	file := filepath.Join(t.TempDir(), "conf")
	for text, want := range map[string]hostdoor.Mode{
		"":                                hostdoor.ModeOff,
		"hostd = /h":                      hostdoor.ModeEvidence,
		"hostd = /h\nhost-pcrs = map":     hostdoor.ModeMap,
		"host-pcrs = off\nhostd = /h":     hostdoor.ModeOff,
		"hostd = /h\nhost-pcrs = perhaps": "",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := readSettings(func(name string) string { return map[string]string{"HWVTPM_SWTPM_CONF": file}[name] })
		if s.host != want || (err != nil) != (want == "") {
			t.Errorf("settings %q: mode %q, %v, want %q", text, s.host, err, want)
		}
	}
}

func TestSettings(t *testing.T) {
	file := filepath.Join(t.TempDir(), "conf")
	for _, tc := range []struct{ text, env, want string }{
		{"# a comment\nsocket = /a\n", "", "/a"},
		{"socket=/a", "/b", "/b"},
		{"socket = none", "", ""},
		{"socket = /a\nsocke = /b", "", "error"},
		{"socket", "", "error"},
		{"socket = /a\nhost-pcrs = evidence", "", "error"}, // by whom
	} {
		if err := os.WriteFile(file, []byte(tc.text), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := readSettings(func(name string) string {
			return map[string]string{"HWVTPM_SWTPM_CONF": file, "HWVTPM_SOCKET": tc.env}[name]
		})
		if err != nil {
			s.socket = "error"
		}
		if s.socket != tc.want {
			t.Errorf("settings %q with %q: %q, %v, want %q", tc.text, tc.env, s.socket, err, tc.want)
		}
	}
}
