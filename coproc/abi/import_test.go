// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"errors"
	"reflect"
	"testing"
)

func TestImportChunk(t *testing.T) {
	want := ImportChunk{Offset: 0x1000, Size: 0x1004, Bytes: []byte{1, 2, 3, 4}}
	golden := unhex(`00100000 04100000 01020304`)
	b := AppendImportChunk(nil, &want)
	if string(b) != string(golden) {
		t.Errorf("encoded %x, want %x", b, golden)
	}
	if got, err := ParseImportChunk(golden); err != nil || !reflect.DeepEqual(got, want) || !got.Last() {
		t.Errorf("parsed %+v, %v", got, err)
	}
	chunk := func(offset, size uint32, n int) []byte {
		return AppendImportChunk(nil, &ImportChunk{offset, size, make([]byte, n)})
	}
	for name, b := range map[string][]byte{
		"nothing":           nil,
		"no bytes":          chunk(0, 1000, 0),
		"no state":          chunk(0, SlotCreateSize, SlotCreateSize),
		"too much":          chunk(0, MaxImport+1, 100),
		"behind the end":    chunk(990, 1000, 11),
		"offset that wraps": chunk(0xffffffff, 1000, 2),
		"too long a chunk":  chunk(0, MaxImport, MaxImportChunk+1),
	} {
		if c, err := ParseImportChunk(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v, want ErrMalformed", name, c, err)
		}
	}
}

func FuzzImportChunk(f *testing.F) {
	f.Add(AppendImportChunk(nil, &ImportChunk{0, 1000, []byte("bytes")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseImportChunk(b)
		if err == nil && string(AppendImportChunk(nil, &c)) != string(b) {
			t.Errorf("%x parsed is %+v", b, c)
		}
	})
}
