// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"hwvtpm/coproc/abi"
)

func drawState(t *rapid.T) durable {
	return durable{
		slotID:     [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id")),
		generation: rapid.Uint64().Draw(t, "generation"),
		engine:     rapid.Uint32().Draw(t, "engine"),
		flags:      rapid.Uint32Range(0, stateKnownFlags).Draw(t, "flags"),
		run:        [abi.RunIDSize]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "run")),
		permanent:  rapid.SliceOfN(rapid.Byte(), 1, 3000).Draw(t, "permanent"),
	}
}

func TestStateRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawState(t)
		b, sum := appendState(nil, &want)
		got, gotSum, err := parseState(b)
		if err != nil || gotSum != sum {
			t.Fatalf("parse: %v, sum %x, want %x", err, gotSum, sum)
		}
		if d := cmp.Diff(want, got, cmp.AllowUnexported(durable{})); d != "" {
			t.Fatalf("state changed on the way (-want +got):\n%s", d)
		}
		i := rapid.IntRange(0, len(b)-1).Draw(t, "damaged")
		b[i] ^= byte(rapid.IntRange(1, 255).Draw(t, "xor"))
		if _, _, err := parseState(b); !errors.Is(err, errCorrupt) {
			t.Fatalf("byte %d damaged: %v, want errCorrupt", i, err)
		}
	})
}

func TestCommitWord(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := commitWord{
			serial:  rapid.Uint32().Draw(t, "serial"),
			journal: 8 * rapid.IntRange(0, journalSize/8).Draw(t, "journal"),
		}
		w := want.pack()
		if got, err := unpackCommit(w); err != nil || got != want {
			t.Fatalf("unpack(%#x) = %+v, %v, want %+v", w, got, err, want)
		}
		bit := rapid.IntRange(0, 63).Draw(t, "bit")
		if got, err := unpackCommit(w ^ 1<<bit); err == nil {
			t.Fatalf("bit %d flipped: %+v", bit, got)
		}
	})
	if _, err := unpackCommit(0); err == nil {
		t.Error("an all-zero file has a commit word")
	}
}

func TestCheckpointRoundTrip(t *testing.T) {
	place := make([]byte, slotSize)
	rapid.Check(t, func(t *rapid.T) {
		want := checkpoint{
			serial:   rapid.Uint32().Draw(t, "serial"),
			seq:      rapid.Uint64().Draw(t, "seq"),
			flags:    rapid.Uint32Range(0, knownFlags).Draw(t, "flags"),
			bound:    stateSum(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "bound")),
			run:      [abi.RunIDSize]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "run")),
			response: rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "response"),
			volatile: rapid.SliceOfN(rapid.Byte(), 0, 3000).Draw(t, "volatile"),
		}
		copy(place[ckptVolatile:], want.volatile)
		putCheckpoint(place, &want, len(want.volatile))
		got, err := parseCheckpoint(place)
		if err != nil {
			t.Fatalf("parse: %v", err)
		}
		if d := cmp.Diff(want, got, cmp.AllowUnexported(checkpoint{})); d != "" {
			t.Fatalf("checkpoint changed on the way (-want +got):\n%s", d)
		}
	})
}

// TestJournalEntries: entries come back in order, and those of another
// checkpoint are none.
func TestJournalEntries(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		serial := rapid.Uint32().Draw(t, "serial")
		n := rapid.IntRange(1, 5).Draw(t, "entries")
		var journal []byte
		var want []entry
		for i := range n {
			e := entry{
				seq:      uint64(i + 1),
				locality: uint8(rapid.IntRange(0, abi.MaxLocality).Draw(t, "locality")),
				command:  rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "command"),
				response: rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "response"),
			}
			b := make([]byte, entrySize(len(e.command), len(e.response)))
			copy(b[entryHeaderSize:], e.command)
			putEntry(b, serial, &e, len(e.command))
			journal = append(journal, b...)
			want = append(want, e)
		}
		rest := journal
		for i := range n {
			var e entry
			var err error
			if e, rest, err = nextEntry(rest, serial); err != nil {
				t.Fatalf("entry %d: %v", i, err)
			}
			if e.seq != want[i].seq || e.locality != want[i].locality ||
				!bytes.Equal(e.command, want[i].command) || !bytes.Equal(e.response, want[i].response) {
				t.Fatalf("entry %d = %+v, want %+v", i, e, want[i])
			}
		}
		if len(rest) != 0 {
			t.Fatalf("%d bytes left", len(rest))
		}
		if _, _, err := nextEntry(journal, serial+1); !errors.Is(err, errCorrupt) {
			t.Fatalf("entry of another checkpoint: %v, want errCorrupt", err)
		}
	})
}

func FuzzState(f *testing.F) {
	d := durable{generation: 7, permanent: []byte("permanent")}
	b, _ := appendState(nil, &d)
	f.Add(b)
	f.Add(b[:stateHeaderSize])
	f.Fuzz(func(t *testing.T, b []byte) {
		// Past the checksum, as an attacker with the file could get.
		if len(b) >= stateHeaderSize+stateSumSize {
			b = resum(b)
		}
		d, sum, err := parseState(b)
		if err != nil {
			if !errors.Is(err, errCorrupt) {
				t.Errorf("%v is not errCorrupt", err)
			}
			return
		}
		if len(d.permanent) == 0 || len(d.permanent) > len(b) || sum != stateSum(b[len(b)-stateSumSize:]) {
			t.Errorf("%d bytes of permanent state in %d, sum %x", len(d.permanent), len(b), sum)
		}
	})
}

// resum gives b with the right checksum.
func resum(b []byte) []byte {
	body := b[:len(b)-stateSumSize]
	sum := sha256.Sum256(body)
	return append(bytes.Clone(body), sum[:]...)
}

func FuzzVolatile(f *testing.F) {
	var e entry
	e.command, e.response = []byte("command"), []byte("response")
	b := make([]byte, entrySize(len(e.command), len(e.response)))
	copy(b[entryHeaderSize:], e.command)
	putEntry(b, 3, &e, len(e.command))
	f.Add(b, uint32(3))
	f.Add([]byte{}, uint32(0))
	place := make([]byte, slotSize)
	f.Fuzz(func(t *testing.T, b []byte, serial uint32) {
		for rest := b; len(rest) > 0; {
			e, tail, err := nextEntry(rest, serial)
			if err != nil {
				if !errors.Is(err, errCorrupt) {
					t.Errorf("%v is not errCorrupt", err)
				}
				break
			}
			if len(tail) >= len(rest) || len(e.command)+len(e.response) > len(rest) {
				t.Fatalf("entry of %d bytes in %d", len(rest)-len(tail), len(rest))
			}
			rest = tail
		}
		clear(place)
		copy(place, b)
		if _, err := parseCheckpoint(place); err != nil && !errors.Is(err, errCorrupt) {
			t.Errorf("%v is not errCorrupt", err)
		}
		if len(b) >= volHeaderSize {
			checkVolatileHeader(b[:volHeaderSize], [16]byte{})
		}
	})
}
