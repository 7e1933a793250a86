// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"bytes"
	"errors"
	"testing"
)

// The golden bytes of what a PCI function adds.
var (
	goldenSubmissionEntry = unhex(`
		04 03 0000 03000000  8877665544332211
		01000000 00000000    0000000000000000
		0050010000000000     0060010000000000
		0000000000000000     0000000000000000`)
	goldenCompletionEntry = unhex(`
		04 00 1300 02000000  8877665544332211
		01000000 01000000    0200 0000 01000000`)
	goldenCardIdentity = unhex(`
		4856544d 0100 0300  02000000 00100000
		03020100 00000000   000102030405060708090a0b0c0d0e0f
		0000000000000000    0000000000000000 0000000000000000`)
	goldenQueueConfig = unhex(`
		0010010000000000  0020010000000000
		00000000 1000 0200  0000000000000000`)
)

var queueCodecs = []codec{
	codecOf("submission entry", goldenSubmissionEntry,
		SubmissionEntry{
			Submission: Submission{Op: OpExecute, Locality: 3, Slot: 1, Seq: 0x1122334455667788},
			Length:     3, PayloadAt: 0x15000, AnswerAt: 0x16000,
		},
		ParseSubmissionEntry, AppendSubmissionEntry),
	codecOf("completion entry", goldenCompletionEntry,
		CompletionEntry{
			Completion: Completion{Op: OpExecute, Status: StatusFailed, Slot: 1, Seq: 0x1122334455667788, Flags: FlagReplayed},
			Length:     2, Queue: 2, Phase: true,
		},
		ParseCompletionEntry, AppendCompletionEntry),
	codecOf("card identity", goldenCardIdentity,
		CardIdentity{Min: 1, Max: 3, Slots: 2, MaxPayload: 4096, Firmware: 0x010203,
			Serial: [16]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}},
		ParseCardIdentity, AppendCardIdentity),
	codecOf("queue config", goldenQueueConfig,
		QueueConfig{SQ: 0x11000, CQ: 0x12000, Entries: 16, Vector: 2},
		ParseQueueConfig, AppendQueueConfig),
}

// TestEntryIsAHeader: an entry begins with the header of the same message over
// a socket, so that both channels have one meaning.
func TestEntryIsAHeader(t *testing.T) {
	sub := Submission{Op: OpExecute, Locality: 2, Seq: 7, Payload: []byte{1, 2, 3}}
	entry := AppendSubmissionEntry(nil, &SubmissionEntry{Submission: sub, Length: 3})
	if want := AppendSubmission(nil, &sub)[:HeaderSize]; !bytes.Equal(entry[:HeaderSize], want) {
		t.Errorf("submission entry begins %x, want %x", entry[:HeaderSize], want)
	}
	c := Completion{Op: OpExecute, Seq: 7, Payload: []byte{1}}
	done := AppendCompletionEntry(nil, &CompletionEntry{Completion: c, Length: 1})
	if want := AppendCompletion(nil, &c)[:HeaderSize]; !bytes.Equal(done, want) {
		t.Errorf("completion entry is %x, want %x", done, want)
	}
}

func TestMalformedEntries(t *testing.T) {
	entry := func(f func(e *SubmissionEntry)) []byte {
		e := SubmissionEntry{Submission: Submission{Op: OpExecute}, Length: 3, PayloadAt: 0x1000, AnswerAt: 0x2000}
		f(&e)
		return AppendSubmissionEntry(nil, &e)
	}
	queue := func(c QueueConfig) []byte { return AppendQueueConfig(nil, &c) }
	for _, tc := range []struct {
		name  string
		parse func([]byte) error
		msg   []byte
	}{
		{"payload above the limit", parseErr(ParseSubmissionEntry), entry(func(e *SubmissionEntry) { e.Length = MaxPayload + 1 })},
		{"payload across a page", parseErr(ParseSubmissionEntry), entry(func(e *SubmissionEntry) { e.PayloadAt += 8 })},
		{"answer across a page", parseErr(ParseSubmissionEntry), entry(func(e *SubmissionEntry) { e.AnswerAt += 8 })},
		{"address of nothing", parseErr(ParseSubmissionEntry), entry(func(e *SubmissionEntry) { e.Length = 0 })},
		{"locality 5", parseErr(ParseSubmissionEntry), entry(func(e *SubmissionEntry) { e.Locality = 5 })},
		{"answer above the limit", parseErr(ParseCompletionEntry), AppendCompletionEntry(nil, &CompletionEntry{Length: MaxPayload + 1})},
		{"queue of 0", parseErr(ParseQueueConfig), queue(QueueConfig{})},
		{"queue of 3", parseErr(ParseQueueConfig), queue(QueueConfig{Entries: 3})},
		{"queue of 128", parseErr(ParseQueueConfig), queue(QueueConfig{Entries: 128})},
		{"queue off its page", parseErr(ParseQueueConfig), queue(QueueConfig{Entries: 2, CQ: 64})},
	} {
		if err := tc.parse(tc.msg); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, want ErrMalformed", tc.name, err)
		}
	}
}

func TestRegisterWords(t *testing.T) {
	c := Capabilities{MaxEntries: 64, Slots: 3, Vectors: 4, ReadyTimeout: 5}
	if got, want := c.Word(), uint64(0x0005_0004_0003_0040); got != want || ParseCapabilities(got) != c {
		t.Errorf("capabilities are %#x, want %#x", got, want)
	}
	s := QueueState{Life: QueueFaulted, Fault: FaultDoorbell}
	if got, want := s.Word(), uint32(0x0202); got != want || ParseQueueState(got|1<<31) != s {
		t.Errorf("queue state is %#x, want %#x", got, want)
	}
}

func TestBarSize(t *testing.T) {
	for _, tc := range []struct {
		slots int
		want  uint64
	}{{1, 0x4000}, {2, 0x8000}, {5, 0x8000}, {6, 0x10000}, {MaxSlots, 0x800000}} {
		if got := BarSize(tc.slots); got != tc.want {
			t.Errorf("BarSize(%d) = %#x, want %#x", tc.slots, got, tc.want)
		}
	}
}

func TestWords(t *testing.T) {
	mem := make([]byte, 16)
	StoreWord(mem, 8, 0x04030201)
	if want := unhex("0000000000000000 01020304 00000000"); !bytes.Equal(mem, want) {
		t.Errorf("memory is %x, want %x", mem, want)
	}
	if got := LoadWord(mem, 8); got != 0x04030201 {
		t.Errorf("LoadWord = %#x", got)
	}
}
