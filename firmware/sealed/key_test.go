// SPDX-License-Identifier: Apache-2.0

package sealed

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func testKey(t *testing.T) *Key {
	t.Helper()
	k, err := fixedKey(0xab).Key()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	k, err := CreateKeyFile(path, testKey(t))
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	for _, src := range []KeySource{k, OpenKeyFile(path)} {
		got, err := src.Key()
		if err != nil || *got != *testKey(t) {
			t.Errorf("key is not what was written: %v", err)
		}
	}
	if _, err := CreateKeyFile(path, NewKey()); !errors.Is(err, fs.ErrExist) {
		t.Errorf("create over a key file: %v", err)
	}
	if got, err := k.Key(); err != nil || *got != *testKey(t) {
		t.Errorf("key was touched: %v", err)
	}
	if left, _ := filepath.Glob(path + ".*"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sameAsGolden(t, "keyfile.hex", b)
	const want = "key file: whoever reads it can unseal; no rollback protection"
	if k.String() != want {
		t.Errorf("String = %q", k)
	}
}

func TestKeyFileRefuses(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	if _, err := CreateKeyFile(good, testKey(t)); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	edit := func(f func(b []byte) []byte) func(string) error {
		return func(path string) error { return os.WriteFile(path, f(bytes.Clone(text)), 0o600) }
	}
	for name, tc := range map[string]struct {
		make func(path string) error
		want error
	}{
		"missing":  {func(string) error { return nil }, fs.ErrNotExist},
		"empty":    {edit(func(b []byte) []byte { return nil }), ErrDamaged},
		"short":    {edit(func(b []byte) []byte { return b[:len(b)-1] }), ErrDamaged},
		"long":     {edit(func(b []byte) []byte { return append(b, 0) }), ErrDamaged},
		"bit":      {edit(func(b []byte) []byte { b[20] ^= 1; return b }), ErrDamaged},
		"other":    {edit(func(b []byte) []byte { b[0] = 'H'; return b }), ErrDamaged},
		"version":  {edit(func(b []byte) []byte { b[8] = 2; return b }), ErrVersion},
		"link":     {func(path string) error { return os.Symlink(good, path) }, syscall.ELOOP},
		"fifo":     {func(path string) error { return syscall.Mkfifo(path, 0o600) }, fs.ErrInvalid},
		"readable": {func(path string) error { return os.WriteFile(path, text, 0o640) }, fs.ErrPermission},
	} {
		path := filepath.Join(dir, name)
		if err := tc.make(path); err != nil {
			t.Fatal(err)
		}
		k := OpenKeyFile(path)
		if _, err := k.Key(); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		} else if leaks(err.Error(), text[16:48]) {
			t.Errorf("%s: the error tells the key", name)
		}
		if _, err := OpenStore(k); !errors.Is(err, tc.want) {
			t.Errorf("%s: OpenStore: %v", name, err)
		}
	}
}

// leaks says whether text tells a part of the secret, in one of the ways that
// Go prints bytes.
func leaks(text string, secret []byte) bool {
	part := secret[:4]
	decimal := strings.Trim(fmt.Sprint(part), "[]")
	return strings.Contains(text, string(part)) || strings.Contains(text, decimal) ||
		strings.Contains(strings.ToLower(text), hex.EncodeToString(part)) ||
		strings.Contains(text, strings.Trim(fmt.Sprintf("%#v", part), "[]byte{}"))
}

func TestNothingPrintsASecret(t *testing.T) {
	key := testKey(t)
	store, err := OpenStore(fixedKey(0xab))
	if err != nil {
		t.Fatal(err)
	}
	root := bytes.Clone(store.root.Bytes())
	slot, err := store.Slot(testSlot)
	must(t, err)
	values := []any{key, *key, struct{ K *Key }{key}, store, slot, OpenKeyFile("x")}
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%d", "%q"} {
			if text := fmt.Sprintf(verb, v); leaks(text, key.Bytes()) || leaks(text, root) {
				t.Errorf("%s of %T tells a key: %s", verb, v, text)
			}
		}
		if text, err := json.Marshal(v); err == nil && (leaks(string(text), key.Bytes()) || leaks(string(text), root)) {
			t.Errorf("JSON of %T tells a key", v)
		}
	}
}

func TestClosedStoreHasNoKeys(t *testing.T) {
	s := newStore(t, 1)
	root := s.root
	s.Close()
	s.Close()
	if *root != (Key{}) {
		t.Error("the root is still there")
	}
	if _, err := s.Slot(testSlot); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Slot: %v", err)
	}
	if _, err := s.Secret("x"); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Secret: %v", err)
	}
}

func TestSecretsDiffer(t *testing.T) {
	seen := map[Key]bool{}
	for _, key := range []byte{1, 2} {
		s := newStore(t, key)
		for _, purpose := range []string{"", "a", "b"} {
			k, err := s.Secret(purpose)
			if err != nil {
				t.Fatal(err)
			}
			seen[*k] = true
		}
	}
	if len(seen) != 6 {
		t.Errorf("%d different secrets, want 6", len(seen))
	}
}

func FuzzKeyFile(f *testing.F) {
	f.Add([]byte(keyFileMagic))
	f.Add(make([]byte, keyFileSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := parseKeyFile(b); err == nil && len(b) != keyFileSize {
			t.Errorf("read a key of %d bytes", len(b))
		}
	})
}
