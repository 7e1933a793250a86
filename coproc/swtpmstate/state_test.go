// SPDX-License-Identifier: Apache-2.0

package swtpmstate

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

func part(tag uint16, b []byte) []byte {
	h := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(nil, tag), uint32(len(b)))
	return append(h, b...)
}

func fileOf(flags uint16, parts ...[]byte) []byte {
	body := bytes.Join(parts, nil)
	h := binary.BigEndian.AppendUint16([]byte{2, 1, 0, headerSize}, flags)
	h = binary.BigEndian.AppendUint32(h, uint32(headerSize+len(body)))
	return append(h, body...)
}

// encrypted makes a file as swtpm does.
func encrypted(t testing.TB, state, key []byte) []byte {
	t.Helper()
	n := len(key) - len(state)%len(key)
	text := append(bytes.Clone(state), bytes.Repeat([]byte{byte(n)}, n)...)
	iv := bytes.Repeat([]byte{7}, len(key))
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	cipher.NewCBCEncrypter(block, iv[:aes.BlockSize]).CryptBlocks(text, text)
	mac := hmac.New(sha256.New, key)
	mac.Write(text)
	mac.Write(iv)
	flags := uint16(flagEncrypted)
	if len(key) == 32 {
		flags |= flag256
	}
	return fileOf(flags, part(tagEncrypted, text), part(tagHMAC, mac.Sum(nil)), part(tagVector, iv))
}

var state = []byte("the permanent state of a TPM")

func TestParse(t *testing.T) {
	key16, key32 := bytes.Repeat([]byte{1}, 16), bytes.Repeat([]byte{2}, 32)
	for _, tc := range []struct {
		name      string
		file, key []byte
		want      error
	}{
		{"plain", fileOf(0, part(tagData, state)), nil, nil},
		{"plain behind an unknown part", fileOf(0, part(99, nil), part(tagData, state)), nil, nil},
		{"128 bits", encrypted(t, state, key16), key16, nil},
		{"256 bits", encrypted(t, state, key32), key32, nil},
		{"key for a plain file", fileOf(0, part(tagData, state)), key16, ErrKey},
		{"no key", encrypted(t, state, key16), nil, ErrKey},
		{"wrong key", encrypted(t, state, key16), bytes.Repeat([]byte{3}, 16), ErrKey},
		{"key of another size", encrypted(t, state, key16), key32, ErrKey},
		{"nothing", nil, nil, ErrDamaged},
		{"longer than it says", append(fileOf(0, part(tagData, state)), 0), nil, ErrDamaged},
		{"no parts", fileOf(0), nil, ErrDamaged},
		{"part that is longer than the file", fileOf(0, []byte{0, 1, 0xff, 0xff, 0xff, 0xff}), nil, ErrDamaged},
		{"flags of a migration", fileOf(4, part(tagData, state)), nil, ErrDamaged},
		{"without a check", fileOf(flagEncrypted, part(tagEncrypted, make([]byte, 32)), part(tagVector, make([]byte, 16))), key16, ErrDamaged},
	} {
		got, err := Parse(tc.file, tc.key)
		if !errors.Is(err, tc.want) || err == nil && !bytes.Equal(got, state) {
			t.Errorf("%s: %q, %v, want %v", tc.name, got, err, tc.want)
		}
	}
}

// TestChangedBytes: no byte of an encrypted file can be changed, and none of any
// file be cut off.
func TestChangedBytes(t *testing.T) {
	key := bytes.Repeat([]byte{2}, 32)
	file := encrypted(t, state, key)
	for i := range file {
		b := bytes.Clone(file)
		b[i] ^= 0x40
		if got, err := Parse(b, key); err == nil {
			t.Errorf("byte %d changed: %q", i, got)
		}
		if _, err := Parse(file[:i], key); !errors.Is(err, ErrDamaged) {
			t.Errorf("cut to %d bytes: %v, want ErrDamaged", i, err)
		}
	}
}

func TestKeys(t *testing.T) {
	want := bytes.Repeat([]byte{0xab}, 16)
	text := hex.EncodeToString(want)
	for _, s := range []string{text, "0x" + text, text + "\n", text + " what follows"} {
		if got, err := ParseHexKey([]byte(s)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("ParseHexKey(%q) = %x, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "0x", "abc", text + "zz", text + "00", "\n" + text} {
		if got, err := ParseHexKey([]byte(s)); !errors.Is(err, ErrKey) {
			t.Errorf("ParseHexKey(%q) = %x, %v, want ErrKey", s, got, err)
		}
	}
}

// TestRealSwtpm reads what swtpm itself has written.
func TestRealSwtpm(t *testing.T) {
	if os.Getenv("HWVTPM_TEST_ROOT") != "1" {
		t.Skip("set HWVTPM_TEST_ROOT=1 to start swtpm")
	}
	dir := t.TempDir()
	password := []byte("a passphrase")
	key := bytes.Repeat([]byte{0x5a}, 32)
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	derived, err := PasswordKey(password, 16)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args []string
		key  []byte
	}{
		"plain":    {nil, nil},
		"hex":      {[]string{"--key", "file=" + write("hex", []byte(hex.EncodeToString(key))) + ",mode=aes-256-cbc"}, key},
		"binary":   {[]string{"--key", "file=" + write("bin", key[:16]) + ",format=binary,mode=aes-cbc"}, key[:16]},
		"password": {[]string{"--key", "pwdfile=" + write("pwd", password)}, derived},
		"hashed":   {[]string{"--key", "pwdfile=" + write("pwd", password) + ",kdf=sha512"}, HashedKey(password, 16)},
	} {
		state := t.TempDir()
		socket := filepath.Join(state, "ctrl")
		args := append([]string{"socket", "--tpm2", "--tpmstate", "dir=" + state, "--flags", "startup-clear",
			"--server", "type=unixio,path=" + filepath.Join(state, "data"), "--ctrl", "type=unixio,path=" + socket}, tc.args...)
		cmd := exec.Command("swtpm", args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var file []byte
		for end := time.Now().Add(30 * time.Second); file == nil && time.Now().Before(end); time.Sleep(time.Millisecond) { // written when the TPM is made
			file, _ = os.ReadFile(filepath.Join(state, "tpm2-00.permall"))
			if _, err := parseHeader(file); err != nil {
				file = nil
			}
		}
		cmd.Process.Kill()
		cmd.Wait()
		got, err := Parse(file, tc.key)
		if err != nil || len(got) < 1000 {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

func FuzzParse(f *testing.F) {
	key := bytes.Repeat([]byte{1}, 16)
	f.Add(fileOf(0, part(tagData, state)))
	f.Add(encrypted(f, state, key))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, key := range [][]byte{nil, key} {
			_, err := Parse(b, key)
			if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrKey) {
				t.Errorf("Parse = %v", err)
			}
		}
	})
}
