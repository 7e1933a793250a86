// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"bytes"
	"strings"
	"testing"
)

// codecs pairs each parser with its encoder: decode returns what encode makes
// of the parsed value, and the number of input bytes that it stands for.
var codecs = map[string]struct {
	sample []byte
	recode func(b []byte) (again []byte, err error)
}{
	"header": {
		header{SetMemTable, 9, 40}.append(nil),
		func(b []byte) ([]byte, error) { v, err := parseHeader(b); return v.append(nil), err },
	},
	"u64": {
		appendU64(nil, 0x0102030405060708),
		func(b []byte) ([]byte, error) { v, err := parseU64(b); return appendU64(nil, v), err },
	},
	"vring state": {
		vringState{1, 0xffffffff}.append(nil),
		func(b []byte) ([]byte, error) { v, err := parseVringState(b); return v.append(nil), err },
	},
	"vring address": {
		vringAddr{1, 1, 2, 3, 4, 5}.append(nil),
		func(b []byte) ([]byte, error) { v, err := parseVringAddr(b); return v.append(nil), err },
	},
	"memory table": {
		appendMemTable(nil, []memRegion{{1, 2, 3, 4}, {5, 6, 7, 8}}),
		func(b []byte) ([]byte, error) { v, err := parseMemTable(b); return appendMemTable(nil, v), err },
	},
	"single region": {
		appendSingleRegion(nil, memRegion{1, 2, 3, 4}),
		func(b []byte) ([]byte, error) { v, err := parseSingleRegion(b); return appendSingleRegion(nil, v), err },
	},
	"log": {
		logDesc{4096, 8}.append(nil),
		func(b []byte) ([]byte, error) { v, err := parseLogDesc(b); return v.append(nil), err },
	},
	"config": {
		configAccess{4, 4, 1, []byte{1, 2, 3, 4}}.append(nil),
		func(b []byte) ([]byte, error) { v, err := parseConfigAccess(b); return v.append(nil), err },
	},
	"inflight": {
		inflightDesc{1088, 0, 1, 64}.append(nil),
		func(b []byte) ([]byte, error) { v, err := parseInflightDesc(b); return v.append(nil), err },
	},
	"state transfer": {
		stateTransfer{1, 0}.append(nil),
		func(b []byte) ([]byte, error) { v, err := parseStateTransfer(b); return v.append(nil), err },
	},
}

func TestMessagesRoundTrip(t *testing.T) {
	for name, c := range codecs {
		again, err := c.recode(c.sample)
		if err != nil || !bytes.Equal(again, c.sample) {
			t.Errorf("%s: % x -> % x, %v", name, c.sample, again, err)
		}
		for n := range len(c.sample) {
			if _, err := c.recode(c.sample[:n]); err == nil {
				t.Errorf("%s: %d of %d bytes are accepted", name, n, len(c.sample))
			}
		}
	}
}

// TestMessageLayout pins the wire to literal bytes, little-endian hosts only.
func TestMessageLayout(t *testing.T) {
	if order.Uint16([]byte{1, 0}) != 1 {
		t.Skip("literals are little-endian, this machine is not")
	}
	for name, tc := range map[string]struct{ got, want []byte }{
		"header":    {header{1, 2, 3}.append(nil), []byte{1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0}},
		"state":     {vringState{1, 2}.append(nil), []byte{1, 0, 0, 0, 2, 0, 0, 0}},
		"addr":      {vringAddr{1, 2, 3, 4, 5, 6}.append(nil), []byte{1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0}},
		"inflight":  {inflightDesc{1, 2, 3, 4}.append(nil), []byte{1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 4, 0}},
		"no region": {appendMemTable(nil, nil), make([]byte, 8)},
	} {
		if !bytes.Equal(tc.got, tc.want) {
			t.Errorf("%s:\n got % x\nwant % x", name, tc.got, tc.want)
		}
	}
}

// TestGuardTable: each rule is complete and within what is received at all.
func TestGuardTable(t *testing.T) {
	for r, g := range guards {
		if g.name == "" || strings.ToUpper(g.name) != g.name {
			t.Errorf("request %d has name %q", uint32(r), g.name)
		}
		if g.minLen > g.maxLen || g.maxLen > maxBody || g.minFDs > g.maxFDs || g.maxFDs > maxFDs {
			t.Errorf("%v: limits %+v", r, g)
		}
		if g.protocol != anyTime && supportedProtocol&(1<<g.protocol) == 0 {
			t.Errorf("%v needs protocol feature %d, which is never offered", r, g.protocol)
		}
	}
	if got := Request(77).String(); got != "request 77" {
		t.Errorf("Request(77) = %q", got)
	}
}

func FuzzParse(f *testing.F) {
	for _, c := range codecs {
		f.Add(c.sample)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for name, c := range codecs {
			again, err := c.recode(b)
			if err != nil {
				continue
			}
			// Three layouts have bytes without meaning: padding of the tables,
			// regions behind the count, and the tail of an in-flight description.
			want := bytes.Clone(b[:min(len(b), len(again))])
			switch name {
			case "memory table":
				clear(want[4:8])
			case "single region":
				clear(want[:8])
			}
			if !bytes.Equal(again, want) {
				t.Errorf("%s: % x -> % x", name, b, again)
			}
		}
	})
}
