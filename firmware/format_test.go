// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/sealed"
)

func drawState(t *rapid.T) durable {
	return durable{
		slotID:     sealed.SlotID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id")),
		generation: rapid.Uint64().Draw(t, "generation"),
		engine:     rapid.Uint32().Draw(t, "engine"),
		flags:      rapid.Uint32Range(0, stateKnownFlags).Draw(t, "flags"),
		run:        [abi.RunIDSize]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "run")),
		permanent:  rapid.SliceOfN(rapid.Byte(), 1, 3000).Draw(t, "permanent"),
		pcrs:       rapid.SampledFrom([]abi.PCRMap{{}, hostMap(1), hostMap(2)}).Draw(t, "pcrs"),
		evidence:   rapid.SampledFrom([][]byte{nil, {1}, someEvidence(1)}).Draw(t, "evidence"),
	}
}

func TestStateRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawState(t)
		b := appendState(nil, &want)
		got, err := parseState(b)
		if err != nil {
			t.Fatalf("parse: %v", err)
		}
		if d := cmp.Diff(want, got, cmp.AllowUnexported(durable{}, abi.PCRMap{})); d != "" {
			t.Fatalf("state changed on the way (-want +got):\n%s", d)
		}
		n := rapid.IntRange(0, len(b)-1).Draw(t, "cut")
		if _, err := parseState(b[:n]); !errors.Is(err, errCorrupt) {
			t.Fatalf("%d of %d bytes: %v, want errCorrupt", n, len(b), err)
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
		b := binary.BigEndian.AppendUint64(nil, w)
		if sum := crc32.Checksum(b[:6], castagnoli); uint16(sum) != uint16(w) {
			t.Fatalf("check of %#x is not of CRC-32C %#x", w, sum)
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
	plain := make([]byte, maxCheckpoint)
	rapid.Check(t, func(t *rapid.T) {
		want := checkpoint{
			serial: rapid.Uint32().Draw(t, "serial"),
			seq:    rapid.Uint64().Draw(t, "seq"),
			flags:  rapid.Uint32Range(0, knownFlags).Draw(t, "flags"),
			bound: binding{
				generation: rapid.Uint64().Draw(t, "generation"),
				epoch:      rapid.Uint64().Draw(t, "epoch"),
				print:      sealed.Fingerprint(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "print")),
			},
			run:      [abi.RunIDSize]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "run")),
			boot:     [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "boot")),
			response: rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "response"),
			volatile: rapid.SliceOfN(rapid.Byte(), 0, 3000).Draw(t, "volatile"),
		}
		n := ckptHeaderSize + copy(plain[ckptHeaderSize:], want.response)
		n += copy(plain[n:], want.volatile)
		putCheckpoint(plain, &want, len(want.volatile))
		label := sealed.Label{Generation: want.bound.generation, Epoch: want.bound.epoch}
		got, err := parseCheckpoint(plain[:n], label)
		if err != nil {
			t.Fatalf("parse: %v", err)
		}
		if d := cmp.Diff(want, got, cmp.AllowUnexported(checkpoint{}, binding{})); d != "" {
			t.Fatalf("checkpoint changed on the way (-want +got):\n%s", d)
		}
		if _, err := parseCheckpoint(plain[:n+1], label); !errors.Is(err, errCorrupt) {
			t.Fatalf("one byte too many: %v, want errCorrupt", err)
		}
	})
}

// testSeals gives the seals of a slot, and a blob for a journal to follow.
func testSeals(t testing.TB) (*sealed.Slot, []byte) {
	t.Helper()
	seals, err := sealed.NewSlot(sealed.SlotID{1}, sealed.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	blob, err := seals.Seal(nil, sealed.KindVolatile, 1, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	return seals, blob
}

func testJournal(t testing.TB) *sealed.Journal {
	t.Helper()
	seals, blob := testSeals(t)
	j, err := seals.Journal(blob)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// TestJournalEntries: entries come back in order, and those of another
// checkpoint, or in another order, are none.
func TestJournalEntries(t *testing.T) {
	j, other := testJournal(t), testJournal(t)
	plain := make([]byte, maxEntry)
	rapid.Check(t, func(t *rapid.T) {
		var journal []byte
		var want []entry
		for i := range rapid.IntRange(1, 5).Draw(t, "entries") {
			e := entry{
				seq:      uint64(i + 1),
				locality: uint8(rapid.IntRange(0, abi.MaxLocality).Draw(t, "locality")),
				command:  rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "command"),
				response: rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "response"),
			}
			copy(plain[entryHeaderSize:], e.command)
			n := putEntry(plain, &e, len(e.command))
			frame := appendFrame(nil, j, len(journal), plain[:n])
			if len(frame) != frameSize(len(e.command), len(e.response)) {
				t.Fatalf("frame of %d bytes, want %d", len(frame), frameSize(len(e.command), len(e.response)))
			}
			journal = append(journal, frame...)
			want = append(want, e)
		}
		at := 0
		for i := range want {
			e, next, err := openFrame(plain, j, journal, at)
			if err != nil {
				t.Fatalf("entry %d: %v", i, err)
			}
			if e.seq != want[i].seq || e.locality != want[i].locality ||
				!bytes.Equal(e.command, want[i].command) || !bytes.Equal(e.response, want[i].response) {
				t.Fatalf("entry %d = %+v, want %+v", i, e, want[i])
			}
			if _, _, err := openFrame(plain, j, journal[at:], 0); at > 0 && !errors.Is(err, errCorrupt) {
				t.Fatalf("entry %d at the front: %v, want errCorrupt", i, err)
			}
			at = next
		}
		if at != len(journal) {
			t.Fatalf("entries end at %d, the journal at %d", at, len(journal))
		}
		if _, _, err := openFrame(plain, other, journal, 0); !errors.Is(err, errCorrupt) {
			t.Fatalf("entry of another checkpoint: %v, want errCorrupt", err)
		}
	})
}

// FuzzState reads what is past the seal, as an attacker with the key could get.
func FuzzState(f *testing.F) {
	d := durable{generation: 7, permanent: []byte("permanent")}
	b := appendState(nil, &d)
	f.Add(b)
	f.Add(b[:stateHeaderSize])
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := parseState(b)
		if err != nil {
			if !errors.Is(err, errCorrupt) {
				t.Errorf("%v is not errCorrupt", err)
			}
			return
		}
		if len(d.permanent) == 0 || len(d.permanent)+stateHeaderSize != len(b) {
			t.Errorf("%d bytes of permanent state in %d", len(d.permanent), len(b))
		}
	})
}

func FuzzVolatile(f *testing.F) {
	j := testJournal(f)
	plain := make([]byte, maxEntry)
	n := putEntry(plain, &entry{seq: 1, response: []byte("response")}, 7)
	f.Add(bytes.Clone(plain[:n]))
	f.Add(appendFrame(nil, j, 0, plain[:n]))
	c := checkpoint{serial: 1, response: []byte("response")}
	putCheckpoint(plain, &c, 0)
	f.Add(bytes.Clone(plain[:ckptHeaderSize+len(c.response)]))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > journalSize {
			return
		}
		if _, _, err := openFrame(plain, j, b, 0); err != nil && !errors.Is(err, errCorrupt) {
			t.Errorf("%v is not errCorrupt", err)
		}
		// Past the seal, as an attacker with the key could get.
		if e, err := parseEntry(b); err == nil && len(e.command)+len(e.response)+entryHeaderSize != len(b) {
			t.Errorf("entry of %d and %d bytes in %d", len(e.command), len(e.response), len(b))
		} else if err != nil && !errors.Is(err, errCorrupt) {
			t.Errorf("%v is not errCorrupt", err)
		}
		if c, err := parseCheckpoint(b, sealed.Label{}); err == nil && len(c.response)+len(c.volatile)+ckptHeaderSize != len(b) {
			t.Errorf("checkpoint of %d and %d bytes in %d", len(c.response), len(c.volatile), len(b))
		} else if err != nil && !errors.Is(err, errCorrupt) {
			t.Errorf("%v is not errCorrupt", err)
		}
		if len(b) >= volHeaderSize {
			checkVolatileHeader(b[:volHeaderSize], sealed.SlotID{})
		}
	})
}
