// SPDX-License-Identifier: Apache-2.0

package ekcerttest

import (
	"crypto/x509"
	_ "embed"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

//go:embed ek_store.py
var keylimeRules []byte

// python is the system's, which has the system's packages.
const python = "/usr/bin/python3"

// NeedKeylime skips a test where keylime's library is not.
func NeedKeylime(t testing.TB) {
	t.Helper()
	if out, err := exec.Command(python, "-c", "import cryptography").CombinedOutput(); err != nil {
		t.Skipf("needs python3-cryptography: %v: %s", err, out)
	}
}

// Keylime judges the certificate of an endorsement key (DER) by the rules that
// docs/attestation.md has of keylime, against a store of certificates by name. It gives
// the name of the one that vouches for it; an error says why none does.
func Keylime(t testing.TB, ek []byte, store map[string]*x509.Certificate) (string, error) {
	t.Helper()
	NeedKeylime(t)
	dir := t.TempDir()
	files := map[string][]byte{"ek_store.py": keylimeRules, "ek.der": ek}
	for name, c := range store {
		files["store/"+name+".pem"] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	if err := os.Mkdir(filepath.Join(dir, "store"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(python, "ek_store.py", "ek.der", "store")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return strings.TrimSuffix(strings.TrimSpace(string(out)), ".pem"), nil
}
