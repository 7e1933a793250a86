// SPDX-License-Identifier: Apache-2.0

package firmware

import "fmt"

// commitWord says which checkpoint counts and how much of the journal. It is
// the only thing in the volatile file that is overwritten in place, and it is
// written with one 8-byte store: a kill leaves the old or the new word.
//
//	 63                    32 31          16 15           0
//	+------------------------+--------------+--------------+
//	| serial of checkpoint   | journal /8   | check        |
//	+------------------------+--------------+--------------+
//
// Everything a word refers to is written before the word. So whatever it
// refers to must be intact: if it is not, something was damaged, and that is
// no torn write.
type commitWord struct {
	serial  uint32 // wraps; neighbours differ in the lowest bit
	journal int    // bytes of journal, a multiple of 8
}

func (c commitWord) pack() uint64 {
	w := uint64(c.serial)<<32 | uint64(c.journal/8)<<16
	return w | commitCheck(w)
}

// commitCheck is the lower half of the CRC-32C of the six bytes above it, from the
// highest down. It is computed here, since what package crc32 is given is on the heap.
func commitCheck(w uint64) uint64 {
	crc := ^uint32(0)
	for shift := 56; shift >= 16; shift -= 8 {
		crc = castagnoli[byte(crc)^byte(w>>shift)] ^ crc>>8
	}
	return uint64(^crc & 0xffff)
}

func unpackCommit(w uint64) (commitWord, error) {
	if w&0xffff != commitCheck(w) {
		return commitWord{}, fmt.Errorf("commit word %#x: %w", w, errCorrupt)
	}
	c := commitWord{serial: uint32(w >> 32), journal: int(w>>16&0xffff) * 8}
	if c.journal > journalSize {
		return commitWord{}, fmt.Errorf("commit word names %d bytes of journal: %w", c.journal, errCorrupt)
	}
	return c, nil
}
