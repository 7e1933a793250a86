// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hwvtpm/internal/cli"
)

// needed are the flags without which nothing goes.
var needed = []string{"--name", "host-1", "--control", "https://c", "--control-ca", "f"}

func TestUsage(t *testing.T) {
	for _, tt := range []struct {
		args string
		want int
	}{
		{"--version", cli.ExitOK},
		{"--help", cli.ExitOK},
		{"", cli.ExitUsage},
		{"--no-such-flag", cli.ExitUsage},
		{"--name host-1", cli.ExitUsage},
		{"--name a/b --control https://c --control-ca f", cli.ExitUsage},
	} {
		if got := realMain(t.Context(), strings.Fields(tt.args)); got != tt.want {
			t.Errorf("realMain(%q) = %d, want %d", tt.args, got, tt.want)
		}
	}
}

func TestFlags(t *testing.T) {
	for args, ok := range map[string]bool{
		"":                                     true,
		"more":                                 false,
		"--tpm swtpm:/s":                       true,
		"--tpm /dev/tpmrm0":                    false,
		"--key-type rsa":                       true,
		"--key-type dsa":                       false,
		"--vsock 1024 --vsock-guests f":        true,
		"--vsock 1024":                         false,
		"--vsock-guests f":                     false,
		"--vsock 4294967295 --vsock-guests f":  false,
		"--listen :1 --tls-cert c --tls-key k": true,
		"--listen :1 --tls-cert c":             false,
		"--listen 1 --tls-cert c --tls-key k":  false,
		"--tls-cert c --tls-key k":             false,
		"--guest-group 0 --backend-group 0":    true,
		"--guest-group no-such-group-anywhere": false,
		"--poll 0s":                            false,
		"--pcr-age -1s":                        false,
		"--log-level loud":                     false,
		"--log-format xml":                     false,
		"--log-format json --log-level warn":   true,
		"--socket none --event-log none":       true,
	} {
		if _, err := parseArgs(append(strings.Fields(args), needed...), os.Stderr); (err == nil) != ok {
			t.Errorf("parseArgs(%q): %v, want it taken %v", args, err, ok)
		}
	}
}

// TestSecrets: a secret that others can read is none, and is not used.
func TestSecrets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	c := config{tokenFile: path}
	if text, err := c.token(); text != "" || err != nil {
		t.Errorf("token of a file that is not there: %q, %v", text, err)
	}
	if err := os.WriteFile(path, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := c.token(); text != "secret" || err != nil {
		t.Errorf("token: %q, %v", text, err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if text, err := c.token(); err == nil {
			t.Errorf("token of mode %04o: %q", mode, text)
		}
	}
}

// TestLock: one process has the state at a time.
func TestLock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	first, err := lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := lock(dir); err == nil {
		second.Close()
		t.Error("a second process got the state")
	}
	first.Close()
	again, err := lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}
