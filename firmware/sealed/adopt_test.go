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
)

// adoptable is an anchor's files at three moments.
func adoptable(t *testing.T) (cfg AnchorConfig, records [3][]byte, labels [3]Label) {
	t.Helper()
	cfg = newConfig(t)
	a := newAnchorIn(t, cfg)
	for i := range records {
		labels[i] = permanent(a, uint64(i+1))
		must(t, a.Note(labels[i]))
		must(t, a.Advance())
		records[i] = readFile(t, cfg.Path)
	}
	must(t, a.Close())
	return cfg, records, labels
}

func TestAdoptAnOldRecord(t *testing.T) {
	cfg, records, labels := adoptable(t)
	must(t, os.WriteFile(cfg.Path, records[1], 0o600))
	if _, err := OpenAnchor(cfg); !errors.Is(err, ErrRollback) {
		t.Fatalf("open: %v", err)
	}
	a, d, err := AdoptAnchor(cfg, 0, "restored from a backup")
	must(t, err)
	if d.Number != 1 || d.Epoch != a.Epoch() || d.Epoch <= labels[2].Epoch || d.Digest != a.Digest() || d.Counter == 0 {
		t.Errorf("%+v", d)
	}
	for _, want := range []string{"adoption 1:", "restored from a backup", "when it was at"} {
		if !strings.Contains(d.String(), want) || strings.Contains(d.String(), "\n") {
			t.Errorf("%q does not say %q on one line", d, want)
		}
	}
	if err := a.Check(labels[0]); !errors.Is(err, ErrRollback) {
		t.Errorf("a state older than the record: %v", err)
	}
	must(t, a.Check(labels[1]))
	must(t, a.Note(permanent(a, 2)))
	must(t, a.Close())
	for _, old := range records {
		must(t, os.WriteFile(cfg.Path, old, 0o600))
		if _, err := OpenAnchor(cfg); !errors.Is(err, ErrRollback) {
			t.Errorf("a record from before the adoption: %v", err)
		}
	}
}

func TestAdoptOneSlot(t *testing.T) {
	cfg, _, labels := adoptable(t)
	a := reopen(t, cfg)
	if err := a.Check(labels[0]); !errors.Is(err, ErrRollback) {
		t.Fatal(err)
	}
	before := a.Epoch()
	d, err := a.Adopt(labels[0], "the newer one is damaged")
	must(t, err)
	if a.Epoch() <= before || d.Epoch != a.Epoch() {
		t.Errorf("epoch %d after %d, adoption %v", a.Epoch(), before, d)
	}
	must(t, a.Check(labels[0]))
	saved := permanent(a, 2) // the number of a state that was abandoned
	must(t, a.Note(saved))
	must(t, a.Close())
	a = reopen(t, cfg)
	must(t, a.Check(saved))
	for _, l := range labels {
		if err := a.Check(l); !errors.Is(err, ErrRollback) {
			t.Errorf("%v: %v", l, err)
		}
	}
	d, err = a.Adopt(labels[2], "again")
	if err != nil || d.Number != 2 {
		t.Errorf("adoption %d, %v: the anchor forgot one", d.Number, err)
	}
}

// Epochs go on growing when the counter was replaced, and nothing of the old
// counter is accepted by the new one, whatever its value.
func TestAdoptWithAnotherCounter(t *testing.T) {
	cfg, records, labels := adoptable(t)
	other, err := CreateFileCounter(filepath.Join(t.TempDir(), "counter"))
	must(t, err)
	cfg.Counter = other
	a, _, err := AdoptAnchor(cfg, 0, "the machine's board was replaced")
	must(t, err)
	if a.Epoch() <= labels[2].Epoch {
		t.Errorf("epoch %d after %d", a.Epoch(), labels[2].Epoch)
	}
	must(t, a.Check(labels[2]))
	must(t, a.Note(permanent(a, 9)))
	must(t, a.Close())
	for range 10 {
		for i, old := range records {
			must(t, os.WriteFile(cfg.Path, old, 0o600))
			if _, err := OpenAnchor(cfg); !errors.Is(err, ErrCounter) {
				t.Errorf("record %d: %v", i, err)
			}
		}
		must(t, other.Increment())
	}
}

func TestAdoptWithoutARecord(t *testing.T) {
	cfg, _, labels := adoptable(t)
	record := readFile(t, cfg.Path)
	other, err := CreateFileCounter(filepath.Join(t.TempDir(), "counter"))
	must(t, err)
	cfg.Counter = other
	must(t, os.Remove(cfg.Path))
	a, _, err := AdoptAnchor(cfg, labels[2].Epoch, "the record is lost")
	must(t, err)
	must(t, a.Check(labels[2]))
	must(t, a.Close())
	record[len(record)-1] ^= 1
	must(t, os.WriteFile(cfg.Path, record, 0o600))
	a, d, err := AdoptAnchor(cfg, labels[2].Epoch, "the record is damaged")
	must(t, err)
	if !strings.Contains(d.What, "damaged") || a.Epoch() <= labels[2].Epoch {
		t.Errorf("%v", d)
	}
}

func TestAdoptRefuses(t *testing.T) {
	cfg, _, labels := adoptable(t)
	before := readFile(t, cfg.Path)
	wrong := cfg
	wrong.Store = newStore(t, 2)
	if _, _, err := AdoptAnchor(wrong, 0, "x"); !errors.Is(err, ErrWrongKey) {
		t.Errorf("wrong key: %v", err)
	}
	if _, _, err := AdoptAnchor(cfg, 0, ""); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("no reason: %v", err)
	}
	if _, _, err := AdoptAnchor(cfg, maxMinEpoch+1, "x"); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("epoch: %v", err)
	}
	if !bytes.Equal(before, readFile(t, cfg.Path)) {
		t.Error("what was refused was changed")
	}
	a := reopen(t, cfg)
	if _, err := a.Adopt(labels[0], ""); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("no reason: %v", err)
	}
	later := permanent(a, 1)
	later.Epoch++
	if _, err := a.Adopt(later, "x"); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("epoch to come: %v", err)
	}
}

// A crash in an adoption leaves it to be done again, or done.
func TestAdoptCrashes(t *testing.T) {
	store := newStore(t, 1)
	for _, point := range faults {
		w := newWorld(testSlot)
		a, err := adoptInto(w, store)
		must(t, err)
		for range 2 {
			must(t, w.save(a, testSlot))
			must(t, a.Advance())
		}
		old := w.slots[testSlot].saved[0].label
		w.fault = point
		_, err = a.Adopt(old, "test")
		if point == "counter's id" {
			must(t, err) // is not asked for
			continue
		}
		if !errors.Is(err, errFault) {
			t.Fatalf("%s: %v", point, err)
		}
		if err := a.Note(permanent(a, 99)); err == nil {
			t.Errorf("%s: the anchor goes on", point)
		}
		a, err = openAnchor(w.config(store), w)
		if err != nil {
			t.Fatalf("%s: %v", point, err)
		}
		if a.Check(old) == nil {
			continue
		}
		if _, err := a.Adopt(old, "test"); err != nil || a.Check(old) != nil {
			t.Errorf("%s: adopt again: %v", point, err)
		}
	}
}

// A slot stays open while another one is adopted: it goes on in its own epoch, and
// what it saves is in order with what it saves in the next run.
func TestAdoptLeavesOpenSlotsInTheirEpoch(t *testing.T) {
	cfg := newConfig(t)
	a := newAnchorIn(t, cfg)
	open := permanent(a, 1)
	other := Label{SlotID{7}, KindPermanent, 1, a.Epoch()}
	must(t, a.Note(open))
	must(t, a.Note(other))
	newest := other
	newest.Generation = 9
	must(t, a.Note(newest))
	_, err := a.Adopt(other, "a backup of the other one")
	must(t, err)
	open.Generation = 2
	must(t, a.Note(open))
	if epoch, generation, known := a.Newest(testSlot); epoch != open.Epoch || generation != 2 || !known {
		t.Errorf("newest is %d.%d, %v", epoch, generation, known)
	}
	must(t, a.Close())
	a = reopen(t, cfg)
	must(t, a.Check(open))
	if err := a.Note(Label{testSlot, KindPermanent, 3, open.Epoch}); !errors.Is(err, ErrGeneration) {
		t.Errorf("note in an epoch of an earlier run: %v", err)
	}
}
