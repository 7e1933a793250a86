// SPDX-License-Identifier: Apache-2.0

package sealed

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func newConfig(t *testing.T) AnchorConfig {
	t.Helper()
	dir := t.TempDir()
	c, err := CreateFileCounter(filepath.Join(dir, "counter"))
	if err != nil {
		t.Fatal(err)
	}
	return AnchorConfig{Store: newStore(t, 1), Path: filepath.Join(dir, "anchor"), Counter: c}
}

func newAnchorIn(t *testing.T, cfg AnchorConfig) *Anchor {
	t.Helper()
	a, err := CreateAnchor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func reopen(t *testing.T, cfg AnchorConfig) *Anchor {
	t.Helper()
	a, err := OpenAnchor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func permanent(a *Anchor, generation uint64) Label {
	return Label{testSlot, KindPermanent, generation, a.Epoch()}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return b
}

func TestAnchorRemembersOverRuns(t *testing.T) {
	cfg := newConfig(t)
	a := newAnchorIn(t, cfg)
	old, now, next := permanent(a, 5), permanent(a, 6), permanent(a, 7)
	must(t, a.Note(old))
	must(t, a.Note(now))
	must(t, a.Close())
	must(t, a.Close())
	if err := a.Note(next); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Note after Close: %v", err)
	}

	for range 3 {
		a = reopen(t, cfg)
		if err := a.Check(old); !errors.Is(err, ErrRollback) {
			t.Errorf("old state: %v", err)
		}
		must(t, a.Check(now))
		must(t, a.Close())
	}
	a = reopen(t, cfg)
	must(t, a.Check(next)) // saved, and not anchored before a crash
	if err := a.Check(now); !errors.Is(err, ErrRollback) {
		t.Errorf("the state before the one that runs: %v", err)
	}
}

// An anchor remembers the slots that there are, and refuses what a table that was set
// back has beside them.
func TestAnchorForgets(t *testing.T) {
	cfg := newConfig(t)
	a := newAnchorIn(t, cfg)
	stays, goes := permanent(a, 5), permanent(a, 5)
	goes.Slot = SlotID{9}
	must(t, a.Note(stays))
	must(t, a.Advance())
	size := len(readFile(t, cfg.Path))
	must(t, a.Note(goes))
	must(t, a.Advance())
	must(t, a.Retain([]SlotID{stays.Slot}))
	must(t, a.Close())
	if n := len(readFile(t, cfg.Path)); n != size {
		t.Errorf("record has %d bytes, and had %d before the slot that is gone", n, size)
	}

	a = reopen(t, cfg)
	must(t, a.RefuseUnknown([]SlotID{stays.Slot, goes.Slot}))
	must(t, a.Close())
	a = reopen(t, cfg)
	must(t, a.Check(stays))
	if err := a.Check(goes); !errors.Is(err, ErrRollback) || !strings.Contains(err.Error(), "destroyed") {
		t.Errorf("state of a destroyed slot: %v", err)
	}
	_, err := a.Adopt(goes, "we want it back")
	must(t, err)
	must(t, a.Check(goes))
}

func TestVolatileGoesWithTheNewestPermanent(t *testing.T) {
	a := newAnchorIn(t, newConfig(t))
	must(t, a.Note(permanent(a, 5)))
	for generation, want := range map[uint64]error{4: ErrRollback, 5: nil, 6: ErrRollback} {
		l := permanent(a, generation)
		l.Kind = KindVolatile
		if err := a.Check(l); !errors.Is(err, want) {
			t.Errorf("generation %d: %v, want %v", generation, err, want)
		}
	}
	if err := a.Check(Label{SlotID{9}, KindVolatile, 1, a.Epoch()}); !errors.Is(err, ErrRollback) {
		t.Errorf("volatile state of an unknown slot: %v", err)
	}
}

func TestNoteRefuses(t *testing.T) {
	a := newAnchorIn(t, newConfig(t))
	must(t, a.Note(permanent(a, 5)))
	again, epoch, kind := permanent(a, 5), permanent(a, 6), permanent(a, 6)
	epoch.Epoch--
	kind.Kind = KindVolatile
	for _, l := range []Label{again, epoch, kind, permanent(a, destroyed)} {
		if err := a.Note(l); !errors.Is(err, ErrGeneration) {
			t.Errorf("%v: %v", l, err)
		}
	}
}

func TestAnchorRefusesAnotherRecord(t *testing.T) {
	cfg := newConfig(t)
	a := newAnchorIn(t, cfg)
	must(t, a.Note(permanent(a, 1)))
	must(t, a.Advance())
	old := readFile(t, cfg.Path)
	oldCounter := readFile(t, filepath.Join(filepath.Dir(cfg.Path), "counter"))
	must(t, a.Note(permanent(a, 2)))
	must(t, a.Close())
	now := readFile(t, cfg.Path)

	other, err := CreateFileCounter(filepath.Join(t.TempDir(), "counter"))
	must(t, err)
	set, err := CreateFileCounter(filepath.Join(t.TempDir(), "counter"))
	must(t, err)
	must(t, os.WriteFile(set.file.Path(), oldCounter, 0o600))
	must(t, set.Increment())

	wrongKey := cfg
	wrongKey.Store = newStore(t, 2)
	otherCounter := cfg
	otherCounter.Counter = other
	behind := cfg
	behind.Counter = set
	gone := cfg
	gone.Counter = OpenFileCounter(filepath.Join(t.TempDir(), "counter"))
	flip := func(at int) []byte {
		b := bytes.Clone(now)
		b[at] ^= 1
		return b
	}
	must(t, set.file.Replace(oldCounter))
	for name, tc := range map[string]struct {
		cfg    AnchorConfig
		record []byte
		want   error
	}{
		"old record":         {cfg, old, ErrRollback},
		"other key":          {wrongKey, now, ErrWrongKey},
		"other counter":      {otherCounter, now, ErrCounter},
		"no counter":         {gone, now, ErrCounter},
		"bit of the table":   {cfg, flip(recordHeaderSize + 17), ErrDamaged},
		"bit of the MAC":     {cfg, flip(len(now) - 1), ErrDamaged},
		"version":            {cfg, flip(13), ErrVersion},
		"cut":                {cfg, now[:len(now)-1], ErrDamaged},
		"empty":              {cfg, nil, ErrDamaged},
		"more than a record": {cfg, append(bytes.Clone(now), 0), ErrDamaged},
	} {
		must(t, os.WriteFile(cfg.Path, tc.record, 0o600))
		before, _ := cfg.Counter.Read()
		if _, err := OpenAnchor(tc.cfg); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
		if after, _ := cfg.Counter.Read(); after != before || !bytes.Equal(readFile(t, cfg.Path), tc.record) {
			t.Errorf("%s: what was refused was changed", name)
		}
	}
	must(t, os.Remove(cfg.Path))
	if _, err := OpenAnchor(cfg); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("lost record: %v", err)
	}
	must(t, os.WriteFile(cfg.Path, now, 0o600))
	if _, err := CreateAnchor(cfg); !errors.Is(err, fs.ErrExist) {
		t.Errorf("create over a record: %v", err)
	}
	reopen(t, cfg)
}

// A counter of the same identity that went backwards, as a file may.
func TestAnchorRefusesACounterThatWasSetBack(t *testing.T) {
	cfg := newConfig(t)
	counter := filepath.Join(filepath.Dir(cfg.Path), "counter")
	a := newAnchorIn(t, cfg)
	old := readFile(t, counter)
	for g := uint64(1); g < 4; g++ {
		must(t, a.Note(permanent(a, g)))
		must(t, a.Advance())
	}
	must(t, os.WriteFile(counter, old, 0o600))
	if _, err := OpenAnchor(cfg); !errors.Is(err, ErrCounter) {
		t.Errorf("open: %v", err)
	}
	must(t, a.Note(permanent(a, 9)))
	if err := a.Advance(); !errors.Is(err, ErrCounter) {
		t.Errorf("advance: %v", err)
	}
	if err := a.Note(permanent(a, 10)); !errors.Is(err, ErrCounter) {
		t.Errorf("an anchor without a counter goes on: %v", err)
	}
}

// The window is the interval: Tick does not advance more often.
func TestTickKeepsTheInterval(t *testing.T) {
	cfg := newConfig(t)
	cfg.Interval = 3 * time.Second
	a := newAnchorIn(t, cfg)
	start, err := cfg.Counter.Read()
	must(t, err)
	now := time.Unix(1000, 0)
	generation := uint64(0)
	for _, tc := range []struct {
		after time.Duration
		saves int
		want  uint64 // advances since the start
	}{
		{0, 0, 0}, {time.Second, 5, 1}, {time.Second, 5, 1}, {time.Second, 0, 1}, {time.Second, 0, 2},
		{time.Hour, 0, 2}, {0, 1, 3}, {2999 * time.Millisecond, 1, 3}, {time.Millisecond, 0, 4},
	} {
		now = now.Add(tc.after)
		for range tc.saves {
			generation++
			must(t, a.Note(permanent(a, generation)))
		}
		must(t, a.Tick(now))
		if v, _ := cfg.Counter.Read(); v != start+tc.want {
			t.Errorf("at %v: %d advances, want %d", now, v-start, tc.want)
		}
	}
}

func TestGoldenRecord(t *testing.T) {
	k, err := newAnchorKey(newStore(t, 0x42))
	must(t, err)
	r := record{
		counter: 0x1122334455667788, counterID: CounterID{1, 15: 2}, epoch: 0x0102030405060708, base: 3, adoptions: 4,
		table: map[SlotID]position{testSlot: {5, 6}, {1}: {7, destroyed}},
	}
	sameAsGolden(t, "record.hex", k.appendRecord(nil, &r))
	got, err := k.parseRecord(golden(t, "record.hex"))
	if err != nil || got.counter != r.counter || got.table[SlotID{1}] != r.table[SlotID{1}] {
		t.Errorf("parse: %+v, %v", got, err)
	}
	sameAsGolden(t, "counter.hex", appendCounter(CounterID{1, 15: 2}, 0x1122334455667788))
}

func FuzzRecord(f *testing.F) {
	k, err := newAnchorKey(newStore(f, 1))
	if err != nil {
		f.Fatal(err)
	}
	good := k.appendRecord(nil, &record{counter: 1, table: map[SlotID]position{testSlot: {1, 2}, {1}: {3, 4}}})
	f.Add(good[:len(good)-32])
	f.Add([]byte(recordMagic))
	f.Fuzz(func(t *testing.T, body []byte) {
		b := append(body[:len(body):len(body)], k.mac(body)...) // past the MAC
		if r, err := k.parseRecord(b); err == nil {
			again := k.appendRecord(nil, r)
			if !bytes.Equal(again[16:len(again)-32], b[16:len(b)-32]) {
				t.Errorf("record\n%x\nbecomes\n%x", b, again)
			}
		}
		parseCounter(body)
	})
}

func BenchmarkAdvance(b *testing.B) {
	dir := b.TempDir()
	counter, err := CreateFileCounter(filepath.Join(dir, "counter"))
	if err != nil {
		b.Fatal(err)
	}
	a, err := CreateAnchor(AnchorConfig{Store: newStore(b, 1), Path: filepath.Join(dir, "anchor"), Counter: counter})
	if err != nil {
		b.Fatal(err)
	}
	for i := range byte(64) {
		if err := a.Note(Label{SlotID{i}, KindPermanent, 1, a.Epoch()}); err != nil {
			b.Fatal(err)
		}
	}
	generation := uint64(1)
	for b.Loop() {
		generation++
		if err := a.Note(Label{SlotID{1}, KindPermanent, generation, a.Epoch()}); err != nil {
			b.Fatal(err)
		}
		if err := a.Advance(); err != nil {
			b.Fatal(err)
		}
	}
}
