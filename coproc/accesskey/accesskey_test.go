// SPDX-License-Identifier: Apache-2.0

package accesskey

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
)

// The key of RFC 8410, 10.3.
const (
	rfcPrivate = "-----BEGIN PRIVATE KEY-----\n" +
		"MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n" +
		"-----END PRIVATE KEY-----\n"
	rfcPublic = "-----BEGIN PUBLIC KEY-----\n" +
		"MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n" +
		"-----END PUBLIC KEY-----\n"
)

func TestRFC8410(t *testing.T) {
	key, err := Parse([]byte(rfcPrivate))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(Marshal(key)); got != rfcPrivate {
		t.Errorf("Marshal = %s", got)
	}
	if got := string(MarshalPublic(key.Public().(ed25519.PublicKey))); got != rfcPublic {
		t.Errorf("MarshalPublic = %s", got)
	}
	for _, text := range []string{rfcPrivate, rfcPublic} {
		if pub, err := ParsePublic([]byte(text)); err != nil || !pub.Equal(key.Public()) {
			t.Errorf("ParsePublic(%s) = %x, %v", text, pub, err)
		}
	}
}

// TestOtherEncoders: crypto/x509 writes what we read and reads what we write.
func TestOtherEncoders(t *testing.T) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if text := pem.EncodeToMemory(&pem.Block{Type: privateType, Bytes: der}); !bytes.Equal(text, Marshal(key)) {
		t.Errorf("Marshal = %s, want %s", Marshal(key), text)
	}
}

func TestParseRefuses(t *testing.T) {
	encode := func(kind, der string) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: []byte(der)}))
	}
	for name, text := range map[string]string{
		"nothing":       "",
		"no PEM":        "key",
		"public":        rfcPublic,
		"two keys":      rfcPrivate + rfcPrivate,
		"encrypted":     strings.ReplaceAll(rfcPrivate, "PRIVATE", "ENCRYPTED PRIVATE"),
		"other key":     encode(privateType, "\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x6e\x04\x22\x04\x20"+strings.Repeat("k", 32)),
		"short":         encode(privateType, privatePrefix+strings.Repeat("k", 31)),
		"long":          encode(privateType, privatePrefix+strings.Repeat("k", 33)),
		"with a header": strings.Replace(rfcPrivate, "-----\n", "-----\nProc-Type: 4,ENCRYPTED\n\n", 1),
	} {
		if _, err := Parse([]byte(text)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v, want ErrFormat", name, err)
		}
	}
	if _, err := ParsePublic([]byte("key")); !errors.Is(err, ErrFormat) {
		t.Errorf("ParsePublic of no key: %v, want ErrFormat", err)
	}
}

func TestCreateAndLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vm.key")
	defer unix.Umask(unix.Umask(0)) // the mode must not hang on it
	key, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode is %v, %v, want 0600", info.Mode(), err)
	}
	if got, err := Load(path); err != nil || !got.Equal(key) {
		t.Errorf("Load: %v, or another key", err)
	}
	if got, err := LoadPublic(path); err != nil || !got.Equal(key.Public()) {
		t.Errorf("LoadPublic: %v, or another key", err)
	}
}

// TestCreateReplacesNothing: a key that is lost is a TPM that is lost.
func TestCreateReplacesNothing(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "nowhere"), link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, link} {
		if _, err := Create(path); !errors.Is(err, os.ErrExist) {
			t.Errorf("Create(%s): %v, want os.ErrExist", filepath.Base(path), err)
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious" {
		t.Errorf("the file is %q, %v", b, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "nowhere")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the link was followed: %v", err)
	}
}

func TestLoadRefuses(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("good", rfcPrivate, 0o400)
	if _, err := Load(good); err != nil {
		t.Fatalf("Load: %v", err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(good, link); err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{
		write("group-read", rfcPrivate, 0o640):  ErrUnsafe,
		write("group-write", rfcPrivate, 0o620): ErrUnsafe,
		write("other-read", rfcPrivate, 0o604):  ErrUnsafe,
		link:                                    ErrUnsafe,
		pipe:                                    ErrFormat,
		dir:                                     ErrFormat,
		write("long", strings.Repeat("\n", maxFile+1), 0o600): ErrFormat,
		write("other", "-----BEGIN KEY-----\n", 0o600):        ErrFormat,
		filepath.Join(dir, "none"):                            os.ErrNotExist,
	} {
		if _, err := Load(path); !errors.Is(err, want) {
			t.Errorf("Load(%s): %v, want %v", filepath.Base(path), err, want)
		}
	}
}

// FuzzParse: no text panics, and what is read is written the same again.
// TestLoadCredential: the mode of a service's credential counts only for root's.
func TestLoadCredential(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(rfcPrivate), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o440); err != nil {
		t.Fatal(err)
	}
	want := ErrUnsafe
	if os.Geteuid() == 0 && os.Getegid() == 0 {
		want = nil
	}
	if _, err := Load(path); !errors.Is(err, want) {
		t.Errorf("Load of a file of uid %d, mode 0440: %v, want %v", os.Geteuid(), err, want)
	}
	if os.Geteuid() != 0 {
		return
	}
	for _, owner := range [][2]int{{0, 1}, {1, 0}, {1, 1}} {
		if err := os.Chown(path, owner[0], owner[1]); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); !errors.Is(err, ErrUnsafe) {
			t.Errorf("Load of a file of %v, mode 0440: %v, want %v", owner, err, ErrUnsafe)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(rfcPrivate))
	f.Add([]byte(rfcPublic))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if pub, err := ParsePublic(text); err == nil && len(pub) != ed25519.PublicKeySize {
			t.Errorf("public key of %d bytes", len(pub))
		}
		key, err := Parse(text)
		if err != nil {
			return
		}
		if again, err := Parse(Marshal(key)); err != nil || !again.Equal(key) {
			t.Errorf("%q: not the same key again, %v", text, err)
		}
	})
}

func TestProve(t *testing.T) {
	key, err := Parse([]byte(rfcPrivate))
	if err != nil {
		t.Fatal(err)
	}
	c := abi.Challenge{Number: 1, ID: [16]byte{2}, Serial: [16]byte{3}, Nonce: [32]byte{4}}
	proof := Prove(key, c)
	pub := key.Public().(ed25519.PublicKey)
	if !ed25519.Verify(pub, abi.OpenMessage(c.Serial, c.ID, c.Nonce), proof[:]) {
		t.Error("the proof does not hold")
	}
	for _, other := range []abi.Challenge{
		{ID: [16]byte{9}, Serial: c.Serial, Nonce: c.Nonce},
		{ID: c.ID, Serial: [16]byte{9}, Nonce: c.Nonce},
		{ID: c.ID, Serial: c.Serial, Nonce: [32]byte{9}},
	} {
		if ed25519.Verify(pub, abi.OpenMessage(other.Serial, other.ID, other.Nonce), proof[:]) {
			t.Errorf("the proof holds for %+v too", other)
		}
	}
}
