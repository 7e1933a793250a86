// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hwvtpm/firmware/sealed"
)

func someRecords() []Record {
	a, b := record(1), record(2)
	b.Number, b.Locked, b.EKs = 7, true, nil
	return []Record{a, b}
}

func TestTableGolden(t *testing.T) {
	path := filepath.Join("testdata", "table-1.hex")
	got := hex.Dump(appendTable(nil, someRecords()))
	want, err := os.ReadFile(path)
	must(t, err)
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("table differs from %s (-want +got):\n%s", path, d)
	}
}

func TestTableRoundTrip(t *testing.T) {
	for _, want := range [][]Record{nil, someRecords()} {
		got, err := parseTable(appendTable(nil, want))
		must(t, err)
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	}
}

func TestParseTableRefuses(t *testing.T) {
	good := appendTable(nil, someRecords())
	const second = tableHeaderSize + recordSize
	for name, change := range map[string]func(b []byte) []byte{
		"short":           func(b []byte) []byte { return b[:len(b)-1] },
		"long":            func(b []byte) []byte { return append(b, 0) },
		"magic":           func(b []byte) []byte { b[0]++; return b },
		"count":           func(b []byte) []byte { b[12]++; return b },
		"huge count":      func(b []byte) []byte { b[15] = 0xff; return b },
		"same id":         func(b []byte) []byte { copy(b[second:second+16], b[tableHeaderSize:]); return b },
		"zero id":         func(b []byte) []byte { clear(b[second : second+16]); return b },
		"same number":     func(b []byte) []byte { b[second+16] = 0; return b },
		"number":          func(b []byte) []byte { b[second+19] = 1; return b },
		"flags":           func(b []byte) []byte { b[second+20] = 2; return b },
		"keys":            func(b []byte) []byte { b[second+27] = 1; return b },
		"banks":           func(b []byte) []byte { clear(b[second+28 : second+32]); return b },
		"same name":       func(b []byte) []byte { copy(b[second+80:], b[tableHeaderSize+80:tableHeaderSize+144]); return b },
		"name":            func(b []byte) []byte { b[second+80] = '/'; return b },
		"name with a gap": func(b []byte) []byte { b[second+80+30] = 'x'; return b },
		"EKs":             func(b []byte) []byte { b[second+40] = maxEKs + 1; return b },
		"EK name length":  func(b []byte) []byte { b[tableHeaderSize+144+5] = 1; return b },
		"behind EK name":  func(b []byte) []byte { b[tableHeaderSize+144+6+60] = 1; return b },
		"unused EK":       func(b []byte) []byte { b[second+144] = 1; return b },
		"reserved":        func(b []byte) []byte { b[second+44] = 1; return b },
	} {
		if _, err := parseTable(change(bytes.Clone(good))); !errors.Is(err, sealed.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	newer := bytes.Clone(good)
	newer[8] = 2
	if _, err := parseTable(newer); !errors.Is(err, sealed.ErrVersion) {
		t.Errorf("newer version: %v", err)
	}
}

func FuzzTable(f *testing.F) {
	f.Add(appendTable(nil, nil))
	f.Add(appendTable(nil, someRecords()))
	f.Fuzz(func(t *testing.T, b []byte) {
		records, err := parseTable(b)
		if err != nil {
			return
		}
		if again := appendTable(nil, records); !bytes.Equal(again, b) {
			t.Errorf("%x reads and writes as %x", b, again)
		}
	})
}
