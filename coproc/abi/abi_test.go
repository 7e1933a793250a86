// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		panic(err)
	}
	return b
}

// The golden bytes of version 1. A change here is a change of the wire format
// and needs a new version.
var (
	goldenSubmission = unhex(`
		04 03 0000 03000000  8877665544332211
		01000000 00000000    0000000000000000  aabbcc`)
	goldenCompletion = unhex(`
		04 00 1300 02000000  8877665544332211
		01000000 01000000    0000000000000000  ddee`)
	goldenHello    = unhex(`4856544d 0100 0300`)
	goldenIdentity = unhex(`
		4856544d 0100 0000  02090000 01000000
		00100000 00000000   0500000000000000
		0700000000000000    000102030405060708090a0b0c0d0e0f
		0000000000000000`)
	goldenPowerOn = unhex(`03 00000000000000 0900000000000000`)
	goldenHealth  = unhex(`
		02000000 39300000   0100000000000000
		0200000000000000    0300000000000000
		0400000000000000    0500000000000000
		02090000 00000000   0000000000000000`)
	goldenControl = unhex(`01000000 00000000 8877665544332211`)
)

// codec is one message type, made uniform for the tests.
type codec struct {
	name   string
	golden []byte
	value  any
	parse  func([]byte) (any, error)
	encode func(any) []byte
}

func codecOf[T any](name string, golden []byte, value T, parse func([]byte) (T, error), encode func([]byte, *T) []byte) codec {
	return codec{name, golden, value,
		func(b []byte) (any, error) { return parse(b) },
		func(v any) []byte { t := v.(T); return encode(nil, &t) },
	}
}

var codecs = slices.Concat(messageCodecs, queueCodecs, manageCodecs, statementCodecs, moveCodecs, pcrMapCodecs, certifyCodecs)

var messageCodecs = []codec{
	codecOf("submission", goldenSubmission,
		Submission{Op: OpExecute, Locality: 3, Slot: 1, Seq: 0x1122334455667788, Payload: []byte{0xaa, 0xbb, 0xcc}},
		ParseSubmission, AppendSubmission),
	codecOf("completion", goldenCompletion,
		Completion{Op: OpExecute, Status: StatusFailed, Slot: 1, Seq: 0x1122334455667788, Flags: FlagReplayed, Payload: []byte{0xdd, 0xee}},
		ParseCompletion, AppendCompletion),
	codecOf("hello", goldenHello, Hello{Min: 1, Max: 3}, ParseHello,
		func(dst []byte, h *Hello) []byte { return AppendHello(dst, *h) }),
	codecOf("identity", goldenIdentity,
		Identity{Version: 1, EngineVersion: 0x902, Slots: 1, MaxPayload: 4096, Generation: 5, LastSeq: 7,
			SlotID: [16]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}},
		ParseIdentity, AppendIdentity),
	codecOf("power-on reply", goldenPowerOn, PowerOnReply{Resumed: true, Pristine: true, LastSeq: 9}, ParsePowerOnReply,
		func(dst []byte, r *PowerOnReply) []byte { return AppendPowerOnReply(dst, *r) }),
	codecOf("health reply", goldenHealth,
		HealthReply{State: SlotFailed, PID: 12345, Commands: 1, Checkpoints: 2, Journaled: 3, DurableWrites: 4, Generation: 5, EngineVersion: 0x902},
		ParseHealthReply, AppendHealthReply),
	codecOf("control", goldenControl, Control{Op: ControlCancel, Arg: 0x1122334455667788}, ParseControl,
		func(dst []byte, c *Control) []byte { return AppendControl(dst, *c) }),
}

func TestGolden(t *testing.T) {
	for _, c := range codecs {
		if got := c.encode(c.value); !bytes.Equal(got, c.golden) {
			t.Errorf("%s: encoded\n%s\nwant\n%s", c.name, hex.Dump(got), hex.Dump(c.golden))
		}
		got, err := c.parse(c.golden)
		if err != nil || !reflect.DeepEqual(got, c.value) {
			t.Errorf("%s: parsed %+v, %v, want %+v", c.name, got, err, c.value)
		}
	}
}

// TestWrongLength: no message is taken with a byte more or less than it says.
func TestWrongLength(t *testing.T) {
	for _, c := range codecs {
		for n := range len(c.golden) {
			if _, err := c.parse(c.golden[:n]); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s cut to %d bytes: %v, want ErrMalformed", c.name, n, err)
			}
		}
		if _, err := c.parse(append(bytes.Clone(c.golden), 0)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s with a byte more: %v, want ErrMalformed", c.name, err)
		}
	}
}

// TestOneMeaning: a message that is taken means exactly its bytes. So a
// reserved field that is set, or a value out of range, is refused.
func TestOneMeaning(t *testing.T) {
	for _, c := range codecs {
		for i := range len(c.golden) {
			for bit := range 8 {
				b := bytes.Clone(c.golden)
				b[i] ^= 1 << bit
				v, err := c.parse(b)
				if err == nil && !bytes.Equal(c.encode(v), b) {
					t.Errorf("%s: byte %d bit %d is ignored", c.name, i, bit)
				}
			}
		}
	}
}

func TestMalformed(t *testing.T) {
	at := func(b []byte, off int, v byte) []byte {
		b = bytes.Clone(b)
		b[off] = v
		return b
	}
	long := AppendSubmission(nil, &Submission{Op: OpExecute, Payload: make([]byte, MaxPayload+1)})
	for _, tc := range []struct {
		name  string
		parse func([]byte) error
		msg   []byte
	}{
		{"locality 5", parseErr(ParseSubmission), at(goldenSubmission, 1, 5)},
		{"submission reserved", parseErr(ParseSubmission), at(goldenSubmission, 24, 1)},
		{"payload above the limit", parseErr(ParseSubmission), long},
		{"unknown flag", parseErr(ParseCompletion), at(goldenCompletion, 20, 2)},
		{"hello magic", parseErr(ParseHello), at(goldenHello, 0, 0)},
		{"hello empty range", parseErr(ParseHello), at(goldenHello, 4, 9)},
		{"health state", parseErr(ParseHealthReply), at(goldenHealth, 0, 3)},
		{"control operation 0", parseErr(ParseControl), at(goldenControl, 0, 0)},
		{"control operation 4", parseErr(ParseControl), at(goldenControl, 0, 4)},
	} {
		if err := tc.parse(tc.msg); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, want ErrMalformed", tc.name, err)
		}
	}
}

func parseErr[T any](parse func([]byte) (T, error)) func([]byte) error {
	return func(b []byte) error { _, err := parse(b); return err }
}

func TestChooseVersion(t *testing.T) {
	for _, tc := range []struct {
		hello Hello
		want  uint16
		ok    bool
	}{
		{Hello{1, 1}, 1, true},
		{Hello{1, 9}, 1, true},
		{Hello{2, 9}, 0, false},
		{Hello{0, 0}, 0, false},
	} {
		got, ok := tc.hello.Choose()
		if ok != tc.ok || ok && got != tc.want {
			t.Errorf("%+v.Choose() = %d, %t, want %d, %t", tc.hello, got, ok, tc.want, tc.ok)
		}
	}
}

func TestStatusNames(t *testing.T) {
	for s := StatusOK; s <= StatusNoSlot; s++ {
		if strings.HasPrefix(s.String(), "status 0x") {
			t.Errorf("status %d has no name", s)
		}
	}
	for s := StatusInUse; s <= StatusStorage; s++ {
		if strings.HasPrefix(s.String(), "status 0x") {
			t.Errorf("status %d has no name", s)
		}
	}
	if got := Status(0x99).String(); got != "status 0x99" {
		t.Errorf("unknown status is %q", got)
	}
}

// FuzzParse: no input panics a parser, and what is taken encodes to itself.
func FuzzParse(f *testing.F) {
	for i, c := range codecs {
		f.Add(uint8(i), c.golden)
		f.Add(uint8(i), []byte{})
	}
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		c := codecs[int(which)%len(codecs)]
		v, err := c.parse(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("%s: %v is not ErrMalformed", c.name, err)
			}
			return
		}
		if got := c.encode(v); !bytes.Equal(got, b) {
			t.Errorf("%s: %x parsed and encoded is %x", c.name, b, got)
		}
	})
}
