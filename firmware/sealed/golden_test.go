// SPDX-License-Identifier: Apache-2.0

package sealed

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// golden reads testdata/name: bytes in hex, 16 a line.
func golden(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func sameAsGolden(t *testing.T, name string, got []byte) {
	t.Helper()
	if want := golden(t, name); !bytes.Equal(got, want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, hexLines(got), hexLines(want))
	}
}

func hexLines(b []byte) string {
	var out strings.Builder
	for ; len(b) > 16; b = b[16:] {
		out.WriteString(hex.EncodeToString(b[:16]) + "\n")
	}
	return out.String() + hex.EncodeToString(b) + "\n"
}

const goldenPlain = "what a TPM keeps"

func TestGoldenBlob(t *testing.T) {
	c := newSlot(t, 0x42, testSlot)
	c.rand = constant(0x99)
	blob := mustSeal(t, c, KindPermanent, 0x1122334455667788, 0x0102030405060708, []byte(goldenPlain))
	sameAsGolden(t, "blob.hex", blob)
	sameAsGolden(t, "blob-volatile.hex", mustSeal(t, c, KindVolatile, 2, 1, nil))

	out, label, err := newSlot(t, 0x42, testSlot).Open(nil, KindPermanent, golden(t, "blob.hex"))
	if err != nil || string(out) != goldenPlain || label.Generation != 0x1122334455667788 || label.Epoch != 0x0102030405060708 {
		t.Errorf("Open = %q, %v, %v", out, label, err)
	}
}

// The format as docs/sealed-store.md gives it, without this package's code.
func TestGoldenBlobOpensByTheBook(t *testing.T) {
	expand := func(key []byte, info string) []byte {
		b, err := hkdf.Expand(sha256.New, key, info, 32)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	blob := golden(t, "blob.hex")
	root, err := hkdf.Extract(sha256.New, bytes.Repeat([]byte{0x42}, 32), []byte("hwvtpm sealed 1 card\x00"))
	if err != nil {
		t.Fatal(err)
	}
	slotKey := expand(root, "hwvtpm sealed 1 slot\x00"+string(blob[16:32]))
	if id := expand(slotKey, "hwvtpm sealed 1 key id\x00"); !bytes.Equal(id[:16], blob[96:112]) {
		t.Errorf("key id %x, the blob has %x", id[:16], blob[96:112])
	}
	unsalted := bytes.Clone(blob[:112])
	clear(unsalted[64:96])
	salt := expand(slotKey, "hwvtpm sealed 1 salt\x00"+strings.Repeat("\x99", 32)+string(unsalted)+goldenPlain)
	if !bytes.Equal(salt, blob[64:96]) {
		t.Errorf("salt %x, the blob has %x", salt, blob[64:96])
	}
	block, err := aes.NewCipher(expand(slotKey, "hwvtpm sealed 1 blob\x00"+string(blob[:112])))
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	out, err := gcm.Open(nil, make([]byte, 12), blob[112:], blob[:112])
	if err != nil || string(out) != goldenPlain {
		t.Errorf("plaintext %q, %v", out, err)
	}
}
