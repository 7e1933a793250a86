// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"hwvtpm/internal/cli"
)

// The program with its keys in a SoftHSM2 token: no key file is made, lists are
// signed, and the program that was built without says so.
func TestKeysInToken(t *testing.T) {
	if os.Getenv("HWVTPM_TEST_ROOT") != "1" {
		t.Skip("needs softhsm2: set HWVTPM_TEST_ROOT=1 (tier test-root)")
	}
	tmp := t.TempDir()
	program, pin, dir := filepath.Join(tmp, "vtpm-control"), filepath.Join(tmp, "pin"), filepath.Join(tmp, "d")
	env := append(os.Environ(), "SOFTHSM2_CONF="+filepath.Join(tmp, "conf"), "CGO_ENABLED=1", "HWVTPM_CONTROL="+dir)
	command := func(name string, args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Env = env
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	do := func(name string, args ...string) string {
		t.Helper()
		out, err := command(name, args...)
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
		return out
	}
	for name, text := range map[string]string{"pin": "1234\n", "conf": "directories.tokendir = " + tmp + "/tokens\nlog.level = ERROR\n"} {
		if err := os.WriteFile(filepath.Join(tmp, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(tmp, "tokens"), 0o700); err != nil {
		t.Fatal(err)
	}
	do("softhsm2-util", "--init-token", "--free", "--label", "ca", "--so-pin", "5678", "--pin", "1234")
	do("go", "build", "-tags", "pkcs11", "-o", program, ".")
	do(program, "init", "test", "--pkcs11", "/usr/lib/softhsm/libsofthsm2.so", "--pkcs11-token", "ca", "--pkcs11-pin", pin)
	if keys, err := filepath.Glob(filepath.Join(dir, "keys", "*")); err != nil || len(keys) != 0 {
		t.Errorf("key files %v, %v", keys, err)
	}
	if out := do(program, "crl", "attestation"); !strings.Contains(out, "BEGIN X509 CRL") {
		t.Errorf("crl: %s", out)
	}
	if code, _, errs := run(t.Context(), dir, "list", "hosts"); code != cli.ExitFailure || !strings.Contains(errs, "-tags pkcs11") {
		t.Errorf("the program without: exit code %d: %s", code, errs)
	}
	if err := os.Chmod(pin, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := command(program, "list", "hosts"); err == nil || !strings.Contains(out, "0600") {
		t.Errorf("a PIN that others may read: %v: %s", err, out)
	}
}
