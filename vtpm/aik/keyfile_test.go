// SPDX-License-Identifier: Apache-2.0

package aik

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"github.com/google/go-tpm/tpm2"
)

// testKey is a key that no TPM has.
func testKey(t testing.TB, change func(*tpm2.TPMTPublic)) *key {
	t.Helper()
	public := template(ECCP256)
	public.Unique = tpm2.NewTPMUPublicID(public.Type, &tpm2.TPMSECCPoint{
		// The generator of P-256: SEC 2, 2.4.2.
		X: tpm2.TPM2BECCParameter{Buffer: []byte("\x6b\x17\xd1\xf2\xe1\x2c\x42\x47\xf8\xbc\xe6\xe5\x63\xa4\x40\xf2\x77\x03\x7d\x81\x2d\xeb\x33\xa0\xf4\xa1\x39\x45\xd8\x98\xc2\x96")},
		Y: tpm2.TPM2BECCParameter{Buffer: []byte("\x4f\xe3\x42\xe2\xfe\x1a\x7f\x9b\x8e\xe7\xeb\x4a\x7c\x0f\x9e\x16\x2b\xce\x33\x57\x6b\x31\x5e\xce\xcb\xb6\x40\x68\x37\xbf\x51\xf5")},
	})
	if change != nil {
		change(&public)
	}
	return &key{parent: make([]byte, nameSize), public: tpm2.New2B(public), private: tpm2.TPM2BPrivate{Buffer: []byte("private")}}
}

// resum mends the sum of a file.
func resum(b []byte) []byte {
	body := b[:len(b)-sha256.Size]
	sum := sha256.Sum256(body)
	return append(bytes.Clone(body), sum[:]...)
}

func TestDamagedKey(t *testing.T) {
	good := testKey(t, nil).append(nil)
	if _, err := parseKey(good); err != nil {
		t.Fatal(err)
	}
	at := func(i int, v byte) []byte {
		b := bytes.Clone(good)
		b[i] = v
		return b
	}
	unrestricted := testKey(t, func(p *tpm2.TPMTPublic) { p.ObjectAttributes.Restricted = false }).append(nil)
	for name, content := range map[string][]byte{
		"empty":             {},
		"cut":               good[:len(good)-1],
		"more":              append(bytes.Clone(good), 0),
		"a bit":             at(60, good[60]^1),
		"magic":             resum(at(0, 'H')),
		"version":           resum(at(11, 2)),
		"public too long":   resum(at(keyHeader, 0xff)),
		"private too short": resum(append(good[:len(good)-sha256.Size-1:len(good)-sha256.Size-1], make([]byte, sha256.Size)...)),
		"something after":   resum(append(good[:len(good)-sha256.Size:len(good)-sha256.Size], make([]byte, 1+sha256.Size)...)),
		"header alone":      resum(append(good[:keyHeader:keyHeader], make([]byte, sha256.Size)...)),
		"not restricted":    unrestricted,
		"huge":              make([]byte, maxFile+1),
	} {
		dir := t.TempDir()
		if err := os.WriteFile(keyPath(dir), content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readKey(dir); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v, want %v", name, err, ErrDamaged)
		}
	}
	if _, err := readKey(t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add(testKey(f, nil).append(nil))
	f.Add([]byte(keyMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= keyHeader+sha256.Size {
			binary.BigEndian.PutUint32(b[8:], keyVersion)
			b = resum(b)
		}
		k, err := parseKey(b)
		if err != nil {
			return
		}
		if again := k.append(nil); !bytes.Equal(again, b) {
			t.Errorf("%x is written as %x", b, again)
		}
	})
}

func FuzzCutDER(f *testing.F) {
	f.Add([]byte{0x30, 0x81, 1, 0, 2})
	f.Add([]byte{0x10, 0x01, 0, 0, 4, 0x10, 0x02, 0x30, 0x82, 0, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		der, rest, err := cutDER(b)
		if err == nil && (len(der) == 0 || !bytes.HasSuffix(b, append(bytes.Clone(der), rest...))) {
			t.Errorf("%x is cut into %x and %x", b, der, rest)
		}
	})
}
