// SPDX-License-Identifier: Apache-2.0

package sealed

import (
	"errors"
	"io/fs"
	"testing"
)

// TestSlotFromItsKey: who has only a slot's key opens that slot's blobs, and no
// other slot's.
func TestSlotFromItsKey(t *testing.T) {
	store := newStore(t, 1)
	key, err := store.SlotKey(testSlot)
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewSlot(testSlot, key)
	if err != nil {
		t.Fatal(err)
	}
	key.Clear() // it is not needed any more
	blob := mustSeal(t, newSlot(t, 1, testSlot), KindPermanent, 3, 2, []byte("plain"))
	if out, _, err := c.Open(nil, KindPermanent, blob); err != nil || string(out) != "plain" {
		t.Errorf("Open = %q, %v", out, err)
	}
	other := SlotID{9}
	wrong, err := store.SlotKey(testSlot)
	if err != nil {
		t.Fatal(err)
	}
	o, err := NewSlot(other, wrong)
	if err != nil {
		t.Fatal(err)
	}
	blob = mustSeal(t, newSlot(t, 1, other), KindPermanent, 3, 2, []byte("plain"))
	if _, _, err := o.Open(nil, KindPermanent, blob); !errors.Is(err, ErrWrongKey) {
		t.Errorf("another slot's blob: %v, want ErrWrongKey", err)
	}
	for _, k := range []*Key{nil, {}} {
		if _, err := NewSlot(testSlot, k); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("NewSlot without a key: %v, want fs.ErrInvalid", err)
		}
	}
}

func TestParseLabel(t *testing.T) {
	c := newSlot(t, 1, testSlot)
	for _, kind := range []Kind{KindPermanent, KindVolatile, KindTable, KindIdentity} {
		want := Label{testSlot, kind, 7, 3}
		got, err := ParseLabel(mustSeal(t, newSlot(t, 1, testSlot), kind, 7, 3, nil))
		if err != nil || got != want {
			t.Errorf("ParseLabel = %v, %v, want %v", got, err, want)
		}
	}
	if _, err := ParseLabel(mustSeal(t, c, KindVolatile, 1, 1, nil)[:100]); !errors.Is(err, ErrDamaged) {
		t.Errorf("half a blob: %v, want ErrDamaged", err)
	}
}

// TestTableHasPositions: a table is numbered and anchored as a permanent state
// is; an identity is neither.
func TestTableHasPositions(t *testing.T) {
	a := newAnchorIn(t, newConfig(t))
	card := newSlot(t, 1, SlotID{})
	mustSeal(t, card, KindTable, 2, a.Epoch(), nil)
	if _, err := card.Seal(nil, KindTable, 2, a.Epoch(), nil); !errors.Is(err, ErrGeneration) {
		t.Errorf("second table of one generation: %v, want ErrGeneration", err)
	}
	mustSeal(t, card, KindIdentity, 1, 0, nil)
	l := Label{Kind: KindTable, Generation: 2, Epoch: a.Epoch()}
	if err := a.Note(l); err != nil {
		t.Fatalf("Note: %v", err)
	}
	l.Generation = 1
	if err := a.Check(l); !errors.Is(err, ErrRollback) {
		t.Errorf("Check of an older table: %v, want ErrRollback", err)
	}
	l.Kind = KindIdentity
	if err := a.Check(l); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("Check of an identity: %v, want fs.ErrInvalid", err)
	}
	if err := a.Note(l); !errors.Is(err, ErrGeneration) {
		t.Errorf("Note of an identity: %v, want ErrGeneration", err)
	}
}

func TestFingerprints(t *testing.T) {
	c := newSlot(t, 1, testSlot)
	seen := map[Fingerprint]bool{}
	for range 3 {
		for _, plain := range []string{"a", "b"} {
			fp, err := FingerprintOf(mustSeal(t, c, KindVolatile, 1, 1, []byte(plain)))
			if err != nil || seen[fp] {
				t.Errorf("fingerprint %x, %v", fp, err)
			}
			seen[fp] = true
		}
	}
	if _, err := FingerprintOf(nil); !errors.Is(err, ErrDamaged) {
		t.Errorf("fingerprint of nothing: %v, want ErrDamaged", err)
	}
}
