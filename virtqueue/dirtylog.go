// SPDX-License-Identifier: Apache-2.0

package virtqueue

import (
	"math"
	"math/bits"

	"hwvtpm/virtqueue/internal/word"
)

// logPageShift: one bit of the log stands for 4 KiB (vhost-user spec,
// "Migration": VHOST_LOG_PAGE is 0x1000 whatever the host's page size).
const logPageShift = 12

// DirtyLog is the bitmap of guest pages that the device wrote while
// VHOST_F_LOG_ALL is on (vhost-user spec, "Migration"). The front-end reads and
// clears it at the same time, hence atomic ORs.
//
//	byte k of the log, bit b  <=>  guest page 8k+b, at address (8k+b) * 4096
//
// It is safe for concurrent use. The bitmap is not owned: whoever unmaps it
// first takes it away from every Queue with [Queue.SetLog].
type DirtyLog struct {
	mem []byte // the bitmap, in whole words
}

// NewDirtyLog uses mem as the bitmap. Bits are set by 32-bit atomics, so mem
// must start at a multiple of 4 (every mapping does), else the log covers no
// page; a tail shorter than 4 bytes is not used. The front-end sizes the log,
// and [DirtyLog.Pages] tells what it covers.
func NewDirtyLog(mem []byte) *DirtyLog {
	if !word.Aligned(mem) {
		return new(DirtyLog)
	}
	return &DirtyLog{mem: mem[:len(mem)&^3]}
}

// Pages returns how many 4 KiB pages, from guest physical address 0 on, the log
// covers. What lies behind is not marked: a front-end that gives a log too short for
// its memory loses those marks.
func (l *DirtyLog) Pages() uint64 { return uint64(len(l.mem)) * 8 }

// Mark sets the bit of each page that [gpa, gpa+n) touches. Pages beyond the
// log are ignored, and nothing outside the bitmap is written. Mark comes after
// the write it reports: a bit set before could be harvested before the data
// changed, and the change would be lost.
func (l *DirtyLog) Mark(gpa, n uint64) {
	if n == 0 || len(l.mem) == 0 {
		return
	}
	last := gpa + (n - 1)
	if last < gpa {
		last = math.MaxUint64
	}
	first := gpa >> logPageShift
	if first >= l.Pages() {
		return
	}
	end := min(last>>logPageShift, l.Pages()-1)
	for page := first; page <= end; page = (page | 31) + 1 {
		lo := page & 31
		hi := min(end-page+lo, 31)
		mask := uint32(math.MaxUint32) >> (31 - hi) & (uint32(math.MaxUint32) << lo)
		word.Or(l.mem, int(page/32*4), mask)
	}
}

// Dirty reports whether the page that holds guest physical address gpa is
// marked. It reads the live bitmap.
func (l *DirtyLog) Dirty(gpa uint64) bool {
	page := gpa >> logPageShift
	if page >= l.Pages() {
		return false
	}
	return word.Load(l.mem, int(page/32*4))&(1<<(page&31)) != 0
}

// Count returns the number of marked pages.
func (l *DirtyLog) Count() int {
	n := 0
	for off := 0; off < len(l.mem); off += 4 {
		n += bits.OnesCount32(word.Load(l.mem, off))
	}
	return n
}
