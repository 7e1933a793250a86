// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"bytes"
	"errors"
	"testing"
)

// TestHashPlace holds the bytes of a piece of a hash sequence, and what none is.
func TestHashPlace(t *testing.T) {
	wire := []byte{0x05, 0, 0, 0, 0x02, 0, 0, 0, 'd', 'a'}
	p, rest, err := ParseHashPlace(wire)
	if want := (HashPlace{Size: 5, Offset: 2}); err != nil || p != want || string(rest) != "da" {
		t.Errorf("ParseHashPlace = %+v, %q, %v, want %+v", p, rest, err, want)
	}
	if got := append(AppendHashPlace(nil, p), rest...); !bytes.Equal(got, wire) {
		t.Errorf("AppendHashPlace = % x, want % x", got, wire)
	}
	if _, rest, err := ParseHashPlace(make([]byte, HashPlaceSize)); err != nil || len(rest) != 0 {
		t.Errorf("a sequence without data: %q, %v", rest, err)
	}
	for name, b := range map[string][]byte{
		"short":         wire[:HashPlaceSize-1],
		"no bytes":      wire[:HashPlaceSize],
		"behind":        append(AppendHashPlace(nil, HashPlace{Size: 5, Offset: 6}), 0),
		"at the end":    append(AppendHashPlace(nil, HashPlace{Size: 5, Offset: 5}), 0),
		"over the end":  append(AppendHashPlace(nil, HashPlace{Size: 5, Offset: 4}), 0, 0),
		"too large":     append(AppendHashPlace(nil, HashPlace{Size: MaxHash + 1}), 0),
		"without data":  append(AppendHashPlace(nil, HashPlace{}), 0),
		"offset of all": append(AppendHashPlace(nil, HashPlace{Size: 5, Offset: 1<<32 - 1}), 0),
	} {
		if _, _, err := ParseHashPlace(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, want ErrMalformed", name, err)
		}
	}
}
