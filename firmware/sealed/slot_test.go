// SPDX-License-Identifier: Apache-2.0

package sealed

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"testing"

	"pgregory.net/rapid"
)

// fixedKey is a source of a key that tests can name.
type fixedKey byte

func (f fixedKey) Key() (*Key, error) { return KeyFrom(bytes.Repeat([]byte{byte(f)}, KeySize)) }
func (f fixedKey) String() string     { return "fixed key" }

var testSlot = SlotID{0: 0xa0, 15: 0x0f}

func newStore(t testing.TB, key byte) *Store {
	t.Helper()
	s, err := OpenStore(fixedKey(key))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func newSlot(t testing.TB, key byte, id SlotID) *Slot {
	t.Helper()
	c, err := newStore(t, key).Slot(id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func mustSeal(t testing.TB, c *Slot, kind Kind, generation, epoch uint64, plaintext []byte) []byte {
	t.Helper()
	b, err := c.Seal(nil, kind, generation, epoch, plaintext)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// constant is a broken source of random numbers.
type constant byte

func (r constant) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(r)
	}
	return len(b), nil
}

func TestOpenGivesWhatWasSealed(t *testing.T) {
	store := newStore(t, 1)
	rapid.Check(t, func(t *rapid.T) {
		label := Label{
			Kind:       rapid.SampledFrom([]Kind{KindPermanent, KindVolatile}).Draw(t, "kind"),
			Generation: rapid.Uint64Min(1).Draw(t, "generation"),
			Epoch:      rapid.Uint64().Draw(t, "epoch"),
		}
		copy(label.Slot[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "slot"))
		plain := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "plaintext")
		prefix := rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "prefix")
		a, err := store.Slot(label.Slot)
		if err != nil {
			t.Fatal(err)
		}
		blob, err := a.Seal(bytes.Clone(prefix), label.Kind, label.Generation, label.Epoch, plain)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(blob, prefix) || len(blob) != len(prefix)+len(plain)+Overhead {
			t.Fatalf("%d bytes for %d after %d", len(blob), len(plain), len(prefix))
		}
		b, err := store.Slot(label.Slot)
		if err != nil {
			t.Fatal(err)
		}
		out, got, err := b.Open(bytes.Clone(prefix), label.Kind, blob[len(prefix):])
		if err != nil || got != label || !bytes.Equal(out, append(prefix, plain...)) {
			t.Fatalf("Open = %x, %v, %v", out, got, err)
		}
	})
}

func TestEveryBitOfABlobCounts(t *testing.T) {
	c := newSlot(t, 1, testSlot)
	blob := mustSeal(t, c, KindPermanent, 7, 3, []byte("plain"))
	for i := range len(blob) * 8 {
		bad := bytes.Clone(blob)
		bad[i/8] ^= 1 << (i % 8)
		out, _, err := c.Open([]byte("dst"), KindPermanent, bad)
		if err == nil || string(out) != "dst" {
			t.Fatalf("bit %d of byte %d: %q, %v", i%8, i/8, out, err)
		}
		for n := 0; n < len(blob); n += 13 {
			if _, _, err := c.Open(nil, KindPermanent, blob[:n]); !errors.Is(err, ErrDamaged) {
				t.Fatalf("%d bytes: %v", n, err)
			}
		}
	}
}

func TestWhyABlobIsRefused(t *testing.T) {
	other := SlotID{1}
	blob := mustSeal(t, newSlot(t, 1, testSlot), KindPermanent, 7, 3, []byte("plain"))
	damaged := bytes.Clone(blob)
	damaged[len(damaged)-1] ^= 1
	future := bytes.Clone(blob)
	future[12] = 2
	claimed := bytes.Clone(blob) // another slot's blob with the name of this one
	copy(claimed[16:], other[:])
	for _, tc := range []struct {
		name string
		key  byte
		slot SlotID
		kind Kind
		blob []byte
		want error
	}{
		{"wrong key", 2, testSlot, KindPermanent, blob, ErrWrongKey},
		{"other slot", 1, other, KindPermanent, blob, ErrForeign},
		{"other slot, renamed", 1, other, KindPermanent, claimed, ErrWrongKey},
		{"other kind", 1, testSlot, KindVolatile, blob, ErrForeign},
		{"tag", 1, testSlot, KindPermanent, damaged, ErrDamaged},
		{"version", 1, testSlot, KindPermanent, future, ErrVersion},
		{"empty", 1, testSlot, KindPermanent, nil, ErrDamaged},
		{"huge", 1, testSlot, KindPermanent, make([]byte, MaxPlaintext+Overhead+1), ErrDamaged},
	} {
		if _, _, err := newSlot(t, tc.key, tc.slot).Open(nil, tc.kind, tc.blob); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
}

// blobKey is the key of a blob, made anew from what the blob says.
func blobKey(c *Slot, blob []byte) [KeySize]byte {
	var key [KeySize]byte
	c.expand(&key, labelBlob, blob[:blobHeaderSize])
	return key
}

// NIST SP 800-38D, 8: the probability of a repeated IV and key must be
// negligible. The nonce is constant here, so keys must not repeat.
func TestNoKeyEncryptsTwice(t *testing.T) {
	store := newStore(t, 1)
	seen := map[[KeySize]byte]bool{}
	for range 20 { // a slot opened again and again, with the same first words
		c, err := store.Slot(testSlot)
		if err != nil {
			t.Fatal(err)
		}
		for g := range uint64(200) {
			for _, kind := range []Kind{KindPermanent, KindVolatile} {
				key := blobKey(c, mustSeal(t, c, kind, g+1, 1, []byte("the same")))
				if seen[key] {
					t.Fatal("a key was used twice")
				}
				seen[key] = true
			}
		}
	}
}

// A host that was cloned with its memory repeats its random numbers.
func TestNoKeyEncryptsTwiceWithRepeatedRandomNumbers(t *testing.T) {
	seen := map[[KeySize]byte][]byte{}
	blobs := map[string]bool{}
	n := 0
	for _, slot := range []SlotID{testSlot, {1}} {
		for _, kind := range []Kind{KindPermanent, KindVolatile} {
			for g := uint64(1); g < 4; g++ {
				for e := range uint64(3) {
					for _, plain := range []string{"", "a", "b", "ab", "\x01"} {
						for range 2 { // the second repeats all
							c := newSlot(t, 1, slot)
							c.rand = constant(0)
							blob := mustSeal(t, c, kind, g, e, []byte(plain))
							key := blobKey(c, blob)
							if was, ok := seen[key]; ok && !bytes.Equal(was, blob) {
								t.Fatalf("one key for two blobs:\n%x\n%x", was, blob)
							}
							seen[key] = blob
							blobs[string(blob)] = true
							n++
						}
					}
				}
			}
		}
	}
	if len(seen) != n/2 || len(blobs) != n/2 {
		t.Errorf("%d keys and %d blobs, want %d", len(seen), len(blobs), n/2)
	}
}

func TestAGenerationIsSealedOnce(t *testing.T) {
	c := newSlot(t, 1, testSlot)
	at := func(generation, epoch uint64) error {
		_, err := c.Seal(nil, KindPermanent, generation, epoch, nil)
		return err
	}
	for _, tc := range []struct {
		generation, epoch uint64
		want              error
	}{
		{5, 2, nil}, {5, 2, ErrGeneration}, {4, 2, ErrGeneration}, {6, 1, ErrGeneration}, {6, 2, nil}, {1, 3, nil},
	} {
		if err := at(tc.generation, tc.epoch); !errors.Is(err, tc.want) {
			t.Errorf("%d.%d: %v, want %v", tc.epoch, tc.generation, err, tc.want)
		}
	}
	// What was opened counts as well.
	blob := mustSeal(t, c, KindPermanent, 9, 3, nil)
	c = newSlot(t, 1, testSlot)
	if _, _, err := c.Open(nil, KindPermanent, blob); err != nil {
		t.Fatal(err)
	}
	if err := at(9, 3); !errors.Is(err, ErrGeneration) {
		t.Errorf("seal what was opened: %v", err)
	}
	// Checkpoints go with a generation, many with one.
	for range 3 {
		mustSeal(t, c, KindVolatile, 9, 3, nil)
	}
}

func TestSealRefuses(t *testing.T) {
	c := newSlot(t, 1, testSlot)
	if _, err := c.Seal(nil, 0, 1, 1, nil); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("no kind: %v", err)
	}
	if _, err := c.Seal(nil, KindPermanent, 1, 1, make([]byte, MaxPlaintext+1)); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("too much: %v", err)
	}
	c.rand = io.LimitReader(rand.Reader, 5)
	if _, err := c.Seal(nil, KindPermanent, 1, 1, nil); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("no random numbers: %v", err)
	}
	c.Close()
	c.Close()
	if _, err := c.Seal(nil, KindPermanent, 1, 1, nil); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if _, _, err := c.Open(nil, KindPermanent, nil); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	c := newSlot(f, 1, testSlot)
	f.Add(mustSeal(f, c, KindPermanent, 1, 1, []byte("x")))
	f.Add(mustSeal(f, c, KindVolatile, 1, 1, nil))
	f.Add([]byte(blobMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := parseBlob(b); err == nil {
			var out [blobHeaderSize]byte
			h.put(out[:])
			binary.LittleEndian.PutUint32(out[8:], binary.LittleEndian.Uint32(b[8:]))
			binary.LittleEndian.PutUint32(out[12:], binary.LittleEndian.Uint32(b[12:]))
			if !bytes.Equal(out[:], b[:blobHeaderSize]) {
				t.Errorf("header\n%x\nbecomes\n%x", b[:blobHeaderSize], out)
			}
		}
		for _, kind := range []Kind{KindPermanent, KindVolatile} {
			if _, label, err := c.Open(nil, kind, b); err == nil && label.Kind != kind {
				t.Errorf("opened %v as %v", label, kind)
			}
		}
	})
}

func BenchmarkSeal10K(b *testing.B) {
	c := newSlot(b, 1, testSlot)
	plain := make([]byte, 10<<10)
	dst := make([]byte, 0, len(plain)+Overhead)
	b.SetBytes(int64(len(plain)))
	b.ReportAllocs()
	g := uint64(0)
	for b.Loop() {
		g++
		if _, err := c.Seal(dst, KindPermanent, g, 1, plain); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen10K(b *testing.B) {
	c := newSlot(b, 1, testSlot)
	blob := mustSeal(b, c, KindPermanent, 1, 1, make([]byte, 10<<10))
	dst := make([]byte, 0, len(blob))
	b.SetBytes(10 << 10)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := c.Open(dst, KindPermanent, blob); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSlot(b *testing.B) {
	s := newStore(b, 1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Slot(testSlot); err != nil {
			b.Fatal(err)
		}
	}
}
