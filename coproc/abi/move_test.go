// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"bytes"
	"errors"
	"testing"
)

// The golden bytes of moving a state.
var (
	goldenStateSizes = unhex(`11220000 00ff0000 0000000000000000`)
	goldenStatePlace = unhex(`02000000 34120000`)
)

var moveCodecs = []codec{
	codecOf("state sizes", goldenStateSizes, StateSizes{Permanent: 0x2211, Volatile: 0xff00}, ParseStateSizes,
		func(dst []byte, s *StateSizes) []byte { return AppendStateSizes(dst, *s) }),
	codecOf("state place", goldenStatePlace, StatePlace{Part: StateVolatile, Offset: 0x1234}, parseWholePlace,
		func(dst []byte, p *StatePlace) []byte { return AppendStatePlace(dst, *p) }),
}

// parseWholePlace reads a place behind which nothing is.
func parseWholePlace(b []byte) (StatePlace, error) {
	p, rest, err := ParseStatePlace(b)
	if err == nil && len(rest) != 0 {
		err = ErrMalformed
	}
	return p, err
}

func TestStatePlaceGivesWhatFollows(t *testing.T) {
	want := []byte("the bytes of a state")
	p, got, err := ParseStatePlace(append(AppendStatePlace(nil, StatePlace{StatePermanent, 7}), want...))
	if err != nil || p != (StatePlace{StatePermanent, 7}) || !bytes.Equal(got, want) {
		t.Errorf("ParseStatePlace = %+v, %q, %v", p, got, err)
	}
}

func TestMalformedStates(t *testing.T) {
	sizes := func(p, v uint32) []byte { return AppendStateSizes(nil, StateSizes{p, v}) }
	place := func(part StatePart, at uint32) []byte { return AppendStatePlace(nil, StatePlace{part, at}) }
	for _, tc := range []struct {
		name  string
		parse func([]byte) error
		msg   []byte
	}{
		{"no permanent part", parseErr(ParseStateSizes), sizes(0, 1)},
		{"no volatile part", parseErr(ParseStateSizes), sizes(1, 0)},
		{"large permanent part", parseErr(ParseStateSizes), sizes(MaxStatePermanent+1, 1)},
		{"large volatile part", parseErr(ParseStateSizes), sizes(1, MaxStateVolatile+1)},
		{"reserved", parseErr(ParseStateSizes), append(sizes(1, 1)[:15], 1)},
		{"no part", parseErr(parseWholePlace), place(0, 0)},
		{"unknown part", parseErr(parseWholePlace), place(3, 0)},
		{"behind the permanent part", parseErr(parseWholePlace), place(StatePermanent, MaxStatePermanent+1)},
		{"behind the volatile part", parseErr(parseWholePlace), place(StateVolatile, MaxStateVolatile+1)},
	} {
		if err := tc.parse(tc.msg); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, want ErrMalformed", tc.name, err)
		}
	}
}
