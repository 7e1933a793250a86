// SPDX-License-Identifier: Apache-2.0

package sealed

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"
)

func mustJournal(t testing.TB, c *Slot, blob []byte) *Journal {
	t.Helper()
	j, err := c.Journal(blob)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestJournalGivesWhatWasSealed(t *testing.T) {
	c := newSlot(t, 1, testSlot)
	j := mustJournal(t, c, mustSeal(t, c, KindVolatile, 1, 1, []byte("checkpoint")))
	rapid.Check(t, func(t *rapid.T) {
		place := rapid.Uint64().Draw(t, "place")
		entry := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "entry")
		b := j.Seal([]byte("dst"), place, entry)
		if len(b) != 3+EntryOverhead+len(entry) {
			t.Fatalf("%d bytes sealed, want %d", len(b), 3+EntryOverhead+len(entry))
		}
		out, err := j.Open([]byte("out"), place, b[3:])
		if err != nil || !bytes.Equal(out, append([]byte("out"), entry...)) {
			t.Fatalf("Open = %x, %v, want %x", out, err, entry)
		}
		i := rapid.IntRange(3, len(b)-1).Draw(t, "damaged")
		b[i] ^= byte(rapid.IntRange(1, 255).Draw(t, "xor"))
		if out, err := j.Open(nil, place, b[3:]); !errors.Is(err, ErrDamaged) || len(out) != 0 {
			t.Fatalf("byte %d damaged: %x, %v, want ErrDamaged", i, out, err)
		}
	})
}

// TestJournalEntriesDoNotMove: an entry is one only at its place behind its blob.
func TestJournalEntriesDoNotMove(t *testing.T) {
	c := newSlot(t, 1, testSlot)
	blob := mustSeal(t, c, KindVolatile, 1, 1, []byte("checkpoint"))
	same := mustSeal(t, c, KindVolatile, 1, 1, []byte("checkpoint"))
	j := mustJournal(t, c, blob)
	entry := j.Seal(nil, 8, []byte("entry"))
	if _, err := mustJournal(t, c, blob).Open(nil, 8, entry); err != nil {
		t.Errorf("the same journal, made again: %v", err)
	}
	if _, err := j.Open(nil, 16, entry); !errors.Is(err, ErrDamaged) {
		t.Errorf("at another place: %v, want ErrDamaged", err)
	}
	if _, err := mustJournal(t, c, same).Open(nil, 8, entry); !errors.Is(err, ErrDamaged) {
		t.Errorf("behind a blob sealed again: %v, want ErrDamaged", err)
	}
	if _, err := j.Open(nil, 8, entry[:EntryOverhead-1]); !errors.Is(err, ErrDamaged) {
		t.Errorf("cut short: %v, want ErrDamaged", err)
	}
	if _, err := newSlot(t, 2, testSlot).Journal(blob); !errors.Is(err, ErrForeign) {
		t.Errorf("journal behind another card's blob: %v, want ErrForeign", err)
	}
	if _, err := c.Journal(blob[:20]); !errors.Is(err, ErrDamaged) {
		t.Errorf("journal behind no blob: %v, want ErrDamaged", err)
	}
}

// TestJournalNonces: a place that is written twice uses no nonce twice but for
// the very same entry, which then is the same ciphertext.
func TestJournalNonces(t *testing.T) {
	c := newSlot(t, 1, testSlot)
	j := mustJournal(t, c, mustSeal(t, c, KindVolatile, 1, 1, nil))
	seen := map[string]string{}
	for _, e := range []struct {
		place uint64
		entry string
	}{{0, "a"}, {0, "b"}, {0, "a"}, {8, "a"}, {8, ""}, {0, ""}} {
		b := j.Seal(nil, e.place, []byte(e.entry))
		nonce, rest := string(b[:entryNonceSize]), string(b[entryNonceSize:])
		if was, ok := seen[nonce]; ok && was != rest {
			t.Errorf("nonce %x came twice, for %x and %x", nonce, was, rest)
		}
		seen[nonce] = rest
	}
	if len(seen) != 5 {
		t.Errorf("%d nonces for 5 different entries", len(seen))
	}
}

// TestJournalAllocatesNothing: it is on the way of every PCR_Extend.
func TestJournalAllocatesNothing(t *testing.T) {
	c := newSlot(t, 1, testSlot)
	j := mustJournal(t, c, mustSeal(t, c, KindVolatile, 1, 1, nil))
	entry, dst := make([]byte, 200), make([]byte, 0, 300)
	if n := testing.AllocsPerRun(100, func() { j.Seal(dst, 8, entry) }); n > 0 {
		t.Errorf("%v allocations for an entry", n)
	}
}

func BenchmarkJournalSeal(b *testing.B) {
	c := newSlot(b, 1, testSlot)
	j := mustJournal(b, c, mustSeal(b, c, KindVolatile, 1, 1, nil))
	entry, dst := make([]byte, 120), make([]byte, 0, 200)
	b.ReportAllocs()
	for b.Loop() {
		j.Seal(dst, 8, entry)
	}
}
