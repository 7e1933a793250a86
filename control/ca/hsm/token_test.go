// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package hsm

import (
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"hwvtpm/control/ca"
)

const (
	module = "/usr/lib/softhsm/libsofthsm2.so"
	pin    = "1234"
)

// newSoftHSM makes a SoftHSM2 of its own with a token called "test".
func newSoftHSM(t *testing.T) {
	t.Helper()
	if os.Getenv("HWVTPM_TEST_ROOT") != "1" {
		t.Skip("needs softhsm2: set HWVTPM_TEST_ROOT=1 (tier test-root)")
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "conf")
	tokens := filepath.Join(dir, "tokens")
	err := errors.Join(os.Mkdir(tokens, 0o700), os.WriteFile(conf, []byte("directories.tokendir = "+tokens+"\nlog.level = ERROR\n"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	out, err := exec.Command("softhsm2-util", "--init-token", "--free", "--label", "test", "--so-pin", "5678", "--pin", pin).CombinedOutput()
	if err != nil {
		t.Fatalf("softhsm2-util: %v\n%s", err, out)
	}
}

func open(t *testing.T) *Token {
	t.Helper()
	token, err := Open(module, "test", []byte(pin))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { token.Close() })
	return token
}

// An authority with its keys in a token works, and works again from another life.
func TestAuthority(t *testing.T) {
	newSoftHSM(t)
	dir, now := t.TempDir(), time.Now()
	token := open(t)
	made, err := ca.Create(dir, "test", token, now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := token.Create(ca.NameRoot); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second key of a name: %v", err)
	}
	if err := errors.Join(token.Close(), token.Close()); err != nil {
		t.Errorf("Close: %v", err)
	}
	if _, err := made.Attestation.RevocationList(1, nil, ca.Validity{Now: now, Life: time.Hour}); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("signing after Close: %v", err)
	}
	a, err := ca.Load(dir, open(t), now)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for n := range uint64(5) {
				der, err := a.Attestation.RevocationList(n+1, nil, ca.Validity{Now: now, Life: time.Hour})
				if err != nil {
					t.Error(err)
					return
				}
				list, err := x509.ParseRevocationList(der)
				if err == nil {
					err = list.CheckSignatureFrom(a.Attestation.Certificate)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// The private key stays in the token.
func TestKeyStays(t *testing.T) {
	newSoftHSM(t)
	token := open(t)
	if _, err := token.Create("k"); err != nil {
		t.Fatal(err)
	}
	handle, err := token.findLocked(pkcs11.CKO_PRIVATE_KEY, "k")
	if err != nil {
		t.Fatal(err)
	}
	got, err := token.ctx.GetAttributeValue(token.session, handle, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_VALUE, nil)})
	if err == nil {
		t.Errorf("the token gives the key out: %d bytes", len(got[0].Value))
	}
	if _, err := token.Open("other"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a key that is not there: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	newSoftHSM(t)
	if _, err := Open(module, "test", []byte("0000")); err == nil {
		t.Error("a wrong PIN opens the token")
	}
	if _, err := Open(module, "other", []byte(pin)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a token that is not there: %v", err)
	}
	if _, err := Open("/nonexistent.so", "test", nil); err == nil {
		t.Error("a module that is not there")
	}
	open(t) // none of these is in its way
}
