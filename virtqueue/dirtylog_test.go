// SPDX-License-Identifier: Apache-2.0

package virtqueue_test

import (
	"bytes"
	"math"
	"testing"

	"pgregory.net/rapid"

	"hwvtpm/virtqueue"
	"hwvtpm/virtqueue/queuetest"
)

// Mark against the obvious way of doing it, with guard bytes around the bitmap.
func TestMarkAgainstBitByBit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const pages = 160
		mem := bytes.Repeat([]byte{0}, 4+pages/8+4)
		log := virtqueue.NewDirtyLog(mem[4 : 4+pages/8])
		want := make([]byte, len(mem))
		for range rapid.IntRange(1, 4).Draw(t, "marks") {
			gpa := rapid.Uint64Range(0, (pages+8)<<12).Draw(t, "gpa")
			n := rapid.Uint64Range(0, 70<<12).Draw(t, "n")
			log.Mark(gpa, n)
			for page := range uint64(pages) {
				if n > 0 && page >= gpa>>12 && page <= (gpa+n-1)>>12 {
					want[4+page/8] |= 1 << (page % 8)
				}
			}
		}
		if !bytes.Equal(mem, want) {
			t.Fatalf("bitmap\n%x, want\n%x", mem, want)
		}
	})
}

func TestMarkExtremes(t *testing.T) {
	for _, tt := range []struct {
		name   string
		gpa, n uint64
		want   []byte
	}{
		{"nothing", 0, 0, []byte{0, 0, 0, 0}},
		{"one byte", 0x1fff, 1, []byte{2, 0, 0, 0}},
		{"two bytes, two pages", 0x1fff, 2, []byte{6, 0, 0, 0}},
		{"out of range", 32 << 12, 1 << 40, []byte{0, 0, 0, 0}},
		{"end wraps around", 31 << 12, math.MaxUint64, []byte{0, 0, 0, 0x80}},
		{"last address", math.MaxUint64, 1, []byte{0, 0, 0, 0}},
		{"everything", 0, math.MaxUint64, []byte{0xff, 0xff, 0xff, 0xff}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mem := make([]byte, 16)[:6] // aligned; two bytes that make no whole word
			log := virtqueue.NewDirtyLog(mem)
			log.Mark(tt.gpa, tt.n)
			if !bytes.Equal(mem[:4], tt.want) || mem[4] != 0 || mem[5] != 0 {
				t.Errorf("bitmap %x, want %x0000", mem, tt.want)
			}
		})
	}
}

func TestMisalignedLogCoversNothing(t *testing.T) {
	mem := make([]byte, 64)
	log := virtqueue.NewDirtyLog(mem[1:])
	log.Mark(0, 1<<20)
	if log.Pages() != 0 || log.Dirty(0) || log.Count() != 0 || !bytes.Equal(mem, make([]byte, 64)) {
		t.Errorf("%d pages covered, bitmap %x", log.Pages(), mem)
	}
	if pages := virtqueue.NewDirtyLog(mem).Pages(); pages != 512 {
		t.Errorf("Pages of 64 bytes = %d, want 512", pages)
	}
}

// Exactly the pages that one request writes are marked: buffers always, ring
// parts with VHOST_VRING_F_LOG only.
func TestRequestMarksExactlyItsPages(t *testing.T) {
	for _, packed := range []bool{false, true} {
		for _, logUsed := range []bool{false, true} {
			// Queue Size 256: the table fills page 0, what follows is on page 1,
			// the buffers on the pages from 2 on.
			o := queuetest.Options{Size: 256, Packed: packed, EventIdx: true, Mem: make([]byte, 32<<12)}
			d := queuetest.NewDriver(o)
			bitmap := make([]byte, 4)
			cfg := d.Config()
			cfg.Log, cfg.LogUsed, cfg.LogUsedAddr = virtqueue.NewDirtyLog(bitmap), logUsed, d.GPA(d.Layout().Device)
			q := open(t, d, cfg)
			d.Alloc(2<<12 - d.Layout().Heap)
			add(t, d, [][]byte{make([]byte, 2<<12)}, []int{1 << 12, 1 << 12, 16 << 12}, false) // pages 2-3; 4, 5, 6-21

			var c virtqueue.Chain
			pop(t, q, &c)
			readAll(t, d, &c)
			if cfg.Log.Count() != 0 {
				t.Fatalf("packed %v: %d pages marked by reading", packed, cfg.Log.Count())
			}
			if _, err := c.WriteAt(q, make([]byte, 8200), 1<<12); err != nil { // 5, 6 and 7
				t.Fatal(err)
			}
			push(t, q, &c, 3<<12)
			if _, err := q.EnableKick(); err != nil {
				t.Fatal(err)
			}
			want := []byte{0xe0, 0, 0, 0}
			if logUsed {
				want[0] |= 2
			}
			if logUsed && packed {
				want[0] |= 1
			}
			if !bytes.Equal(bitmap, want) {
				t.Errorf("packed %v, log used %v: bitmap %x, want %x", packed, logUsed, bitmap, want)
			}
		}
	}
}

func TestSetLog(t *testing.T) {
	d, q := pair(t, queuetest.Options{Mem: make([]byte, 8<<12)})
	bitmap := make([]byte, 4)
	serve(t, d, q, 1)
	q.SetLog(virtqueue.NewDirtyLog(bitmap), true, 0x5000)
	serve(t, d, q, 1)
	if want := []byte{1 << 5, 0, 0, 0}; !bytes.Equal(bitmap, want) {
		t.Errorf("bitmap %x, want %x: the used ring at the address given", bitmap, want)
	}
	clear(bitmap)
	q.SetLog(nil, false, 0)
	serve(t, d, q, 1)
	if !bytes.Equal(bitmap, make([]byte, 4)) {
		t.Errorf("bitmap %x after the log was taken away", bitmap)
	}
}

// In a ring of several pages the used entry and the index are on different ones.
func TestSplitUsedEntryIsLogged(t *testing.T) {
	d := queuetest.NewDriver(queuetest.Options{Size: 1024, Base: 700, Mem: make([]byte, 16<<12)})
	bitmap := make([]byte, 4)
	cfg := d.Config()
	cfg.Log, cfg.LogUsed, cfg.LogUsedAddr = virtqueue.NewDirtyLog(bitmap), true, d.GPA(d.Layout().Device)
	serve(t, d, open(t, d, cfg), 1)
	entry := d.GPA(d.Layout().Device + 4 + 700*8)
	if !cfg.Log.Dirty(entry) || !cfg.Log.Dirty(cfg.LogUsedAddr) || cfg.Log.Count() != 2 {
		t.Errorf("bitmap %x, want the pages of %#x and %#x", bitmap, entry, cfg.LogUsedAddr)
	}
}
