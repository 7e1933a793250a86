// SPDX-License-Identifier: Apache-2.0

package sealed

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

var errFault = errors.New("fault")

// world is a card's storage and counter, and an attacker who keeps a copy of all
// that was ever written. It is the anchor's file and counter.
type world struct {
	fault  string // the next call at this point fails
	disk   []byte // the record
	value  uint64 // of the counter
	kept   [][]byte
	moment int // number of the last save

	// settled: the last advance, or opening, succeeded. Then the record on disk
	// is the only one that counts.
	settled bool

	slots map[SlotID]*history
}

// history is what was ever saved of a slot.
type history struct {
	current save // on disk
	open    bool // in this run: the anchor knows of current
	saved   []save
	floor   int // moment of the newest save that an advance has anchored
}

type save struct {
	label  Label
	moment int
}

func newWorld(slots ...SlotID) *world {
	w := &world{slots: map[SlotID]*history{}}
	for _, id := range slots {
		w.slots[id] = &history{}
	}
	return w
}

// at fails if the fault is here.
func (w *world) at(point string) error {
	if w.fault != point {
		return nil
	}
	w.fault = ""
	return errFault
}

func (w *world) Read() ([]byte, error) {
	if w.disk == nil {
		return nil, fs.ErrNotExist
	}
	return bytes.Clone(w.disk), nil
}

func (w *world) Create(data []byte) error { return w.Replace(data) }

func (w *world) Replace(data []byte) error {
	if err := w.at("before the record is written"); err != nil {
		return err
	}
	w.kept = append(w.kept, bytes.Clone(data))
	if err := w.at("record written, not in place"); err != nil {
		return err
	}
	w.disk = bytes.Clone(data)
	return w.at("record in place")
}

// worldCounter is the world as a Counter.
type worldCounter struct{ *world }

func (c worldCounter) ID() (CounterID, error) { return CounterID{1}, c.at("counter's id") }
func (c worldCounter) Read() (uint64, error)  { return c.value, c.at("counter read") }
func (c worldCounter) String() string         { return "" }
func (c worldCounter) Increment() error {
	if err := c.at("before the increment"); err != nil {
		return err
	}
	c.value++
	return c.at("after the increment")
}

var faults = []string{
	"before the record is written", "record written, not in place", "record in place",
	"counter read", "before the increment", "after the increment", "counter's id",
}

func (w *world) config(s *Store) AnchorConfig {
	return AnchorConfig{Store: s, Counter: worldCounter{w}}
}

// save saves a slot's next state, and dies before it is noted if the fault says so.
func (w *world) save(a *Anchor, id SlotID) error {
	h := w.slots[id]
	if len(h.saved) > 0 && !h.open {
		if err := a.Check(h.current.label); err != nil {
			return err
		}
	}
	w.moment++
	h.current = save{Label{id, KindPermanent, h.current.label.Generation + 1, a.Epoch()}, w.moment}
	h.saved = append(h.saved, h.current)
	if err := w.at("saved, not noted"); err != nil {
		return err
	}
	h.open = true
	return a.Note(h.current.label)
}

// advanced takes down what an advance that succeeded has promised.
func (w *world) advanced() {
	w.settled = true
	for _, h := range w.slots {
		if h.open {
			h.floor = max(h.floor, h.current.moment)
		}
	}
}

// judge opens the anchor with every record that was ever written, and asks it
// about every state that was ever saved.
func (w *world) judge(store *Store) error {
	honest := false
	records := append(slices.Clone(w.kept), w.disk)
	for i, b := range records {
		copied := &world{disk: b, value: w.value}
		a, err := openAnchor(copied.config(store), copied)
		if err != nil && (errors.Is(err, ErrRollback) || errors.Is(err, ErrCounter)) {
			continue
		}
		if err != nil {
			return err
		}
		if w.settled && !bytes.Equal(b, w.disk) {
			return fmt.Errorf("accepted a record beside the last:\n%x\n%x", b, w.disk)
		}
		honest = honest || i == len(records)-1
		if err := w.judgeStates(a, i == len(records)-1); err != nil {
			return err
		}
	}
	if !honest {
		return fmt.Errorf("bricked: the record on disk is refused")
	}
	return nil
}

func (w *world) judgeStates(a *Anchor, onDisk bool) error {
	for _, h := range w.slots {
		for _, s := range h.saved {
			before := a.rec.table[s.label.Slot]
			err := a.Check(s.label)
			a.rec.table[s.label.Slot] = before // the next question is another run's
			if err == nil && s.moment < h.floor {
				return fmt.Errorf("accepted %v of moment %d, moment %d is anchored", s.label, s.moment, h.floor)
			}
			if err != nil && onDisk && s == h.current {
				return fmt.Errorf("bricked: %w", err)
			}
		}
	}
	return nil
}

// Every point of a crash, in the beginning of an epoch and in an advance.
func TestCrashAtEveryPoint(t *testing.T) {
	store := newStore(t, 1)
	for _, point := range append(slices.Clone(faults), "saved, not noted") {
		for _, when := range []string{"open", "advance"} {
			w := newWorld(testSlot, SlotID{1})
			a, err := adoptInto(w, store)
			must(t, err)
			for range 3 {
				must(t, w.save(a, testSlot))
				must(t, w.save(a, SlotID{1}))
				must(t, a.Advance())
				w.advanced()
			}
			w.fault, w.settled = point, false
			if when == "open" {
				_, err = openAnchor(w.config(store), w)
			} else if err = w.save(a, testSlot); err == nil {
				err = a.Advance()
			}
			if fired := w.fault == ""; fired != errors.Is(err, errFault) {
				t.Fatalf("%s, %s: fault fired %v, error %v", when, point, fired, err)
			}
			w.fault = ""
			if err := w.judge(store); err != nil {
				t.Errorf("%s, %s: %v", when, point, err)
			}
		}
	}
}

// adoptInto makes the first anchor of a world.
func adoptInto(w *world, store *Store) (*Anchor, error) {
	a, _, err := adoptAnchor(w.config(store), w, 0, "new")
	return a, err
}

// Any order of saves, advances, faults and crashes, with an attacker who after
// each crash may put any old record and any old state in place.
func TestNoHistoryCanBeSetBackBeyondTheWindow(t *testing.T) {
	store := newStore(t, 1)
	ids := []SlotID{{1}, {2}}
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(ids...)
		a, err := adoptInto(w, store)
		if err != nil {
			t.Fatal(err)
		}
		crash := func(t *rapid.T) {
			w.fault = ""
			if err := w.judge(store); err != nil {
				t.Fatal(err)
			}
			a = w.restart(t, store)
		}
		t.Repeat(map[string]func(*rapid.T){
			"save": func(t *rapid.T) {
				if err := w.save(a, rapid.SampledFrom(ids).Draw(t, "slot")); err != nil && !errors.Is(err, ErrRollback) {
					t.Fatal(err)
				}
			},
			"advance": func(t *rapid.T) {
				w.fault = rapid.SampledFrom(append([]string{""}, faults...)).Draw(t, "fault")
				w.settled = false
				err := a.Advance()
				w.fault = ""
				if err == nil {
					w.advanced()
				} else if !errors.Is(err, errFault) {
					t.Fatal(err)
				}
			},
			"crash in a save": func(t *rapid.T) {
				w.fault = "saved, not noted"
				if err := w.save(a, rapid.SampledFrom(ids).Draw(t, "slot")); !errors.Is(err, errFault) && !errors.Is(err, ErrRollback) {
					t.Fatal(err)
				}
				crash(t)
			},
			"crash": crash,
		})
	})
}

// restart is the attacker's turn, and then the card's.
func (w *world) restart(t *rapid.T, store *Store) *Anchor {
	if rapid.Bool().Draw(t, "attack") {
		record := rapid.SampledFrom(w.kept).Draw(t, "record")
		trial := &world{disk: record, value: w.value}
		if _, err := openAnchor(trial.config(store), trial); err == nil {
			w.disk = record
		}
	}
	for {
		w.fault, w.settled = rapid.SampledFrom(append([]string{"", "", "", ""}, faults...)).Draw(t, "fault"), false
		a, err := openAnchor(w.config(store), w)
		w.fault = ""
		if errors.Is(err, errFault) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		w.resume(t, a)
		w.settled = true
		return a
	}
}

// resume opens slots with a state of the attacker's choice, if it is accepted.
func (w *world) resume(t *rapid.T, a *Anchor) {
	for _, id := range slices.SortedFunc(maps.Keys(w.slots), compareIDs) {
		h := w.slots[id]
		h.open = false
		if len(h.saved) == 0 || rapid.IntRange(0, 3).Draw(t, "leave shut") == 0 {
			continue
		}
		if tried := rapid.SampledFrom(h.saved).Draw(t, "state"); a.Check(tried.label) == nil {
			h.current, h.open = tried, true
		}
	}
}
