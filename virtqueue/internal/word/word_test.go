// SPDX-License-Identifier: Apache-2.0

package word_test

import (
	"bytes"
	"testing"

	"hwvtpm/virtqueue/internal/word"
)

// All of VIRTIO 1.x is little-endian (1.4), whatever the host is.
func TestWordsAreLittleEndian(t *testing.T) {
	mem := []byte{9, 9, 9, 9, 1, 2, 3, 4, 9, 9, 9, 9}
	if got := word.Load(mem, 4); got != 0x04030201 {
		t.Errorf("Load = %#x, want 0x04030201", got)
	}
	word.Store(mem, 4, 0x0a0b0c0d)
	word.Or(mem, 4, 0xf0000000)
	word.And(mem, 4, 0xffff00ff)
	if want := []byte{9, 9, 9, 9, 0x0d, 0, 0x0b, 0xfa, 9, 9, 9, 9}; !bytes.Equal(mem, want) {
		t.Errorf("memory %x, want %x", mem, want)
	}
}

func TestAligned(t *testing.T) {
	mem := make([]byte, 64)
	for off := range 8 {
		if got, want := word.Aligned(mem[off:]), off%4 == 0; got != want {
			t.Errorf("Aligned at offset %d = %v, want %v", off, got, want)
		}
	}
}
