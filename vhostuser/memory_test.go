// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"errors"
	"testing"

	"hwvtpm/vhostuser"
	"hwvtpm/vhostuser/vhostusertest"
)

// TestMemorySlots fills all slots, and empties them in another order.
func TestMemorySlots(t *testing.T) {
	path, _ := serve(t, vhostuser.Config{Device: &echo{}})
	dial(t, path, vhostusertest.Options{}).Close()
	checkLeaks(t, func() {
		f := realized(t, path, vhostusertest.Options{})
		defer f.Close()
		slots, err := f.GetMaxMemSlots()
		must(t, err)
		if slots < 32 {
			t.Errorf("%d memory slots, want 32 or more", slots)
		}
		slot := func(i uint64) vhostusertest.Region {
			// Offsets that are not page-aligned are mapped all the same.
			return vhostusertest.Region{GPA: i * page, Size: page, User: 1<<40 + i*page, Offset: i * 16, FD: f.Mem.FD}
		}
		before := mappings(t)
		for i := range slots {
			must(t, f.AddMemReg(slot(i)))
		}
		if err := f.AddMemReg(slot(slots)); !errors.Is(err, vhostusertest.ErrRefused) {
			t.Errorf("one slot too many = %v, want a refusal", err)
		}
		if err := f.AddMemReg(slot(3)); !errors.Is(err, vhostusertest.ErrRefused) {
			t.Errorf("the same slot twice = %v, want a refusal", err)
		}
		if got := mappings(t) - before; got != int(slots) {
			t.Errorf("%d mappings for %d slots", got, slots)
		}
		wrong := slot(3)
		wrong.User++
		if err := f.RemMemReg(wrong); !errors.Is(err, vhostusertest.ErrRefused) {
			t.Errorf("removal by another user address = %v, want a refusal", err)
		}
		for i := slots; i > 0; i-- {
			r := slot(i - 1)
			r.Offset = 0 // "The mmap offset is ignored."
			// "the back-end MAY accept messages with one file descriptor", and closes it
			must(t, f.Ack(vhostuser.RemMemReg, vhostusertest.SingleRegion(r), f.Mem.FD))
		}
		if after := mappings(t); after != before {
			t.Errorf("%d mappings with empty slots, want %d", after, before)
		}
	})
}

// TestFailedTableKeepsTheOld: a refused table changes nothing.
func TestFailedTableKeepsTheOld(t *testing.T) {
	path, _ := serve(t, vhostuser.Config{Device: &echo{}})
	f := dial(t, path, vhostusertest.Options{})
	bad := f.Region()
	bad.Size *= 2
	if err := f.SetMemTable(f.Region(), bad); !errors.Is(err, vhostusertest.ErrRefused) {
		t.Errorf("bad table = %v, want a refusal", err)
	}
	exchange(t, f, []byte("as before"))
}

// TestTableReplacedWhileRunning moves guest memory in this process under
// running rings, many times.
func TestTableReplacedWhileRunning(t *testing.T) {
	for name, o := range layouts() {
		t.Run(name, func(t *testing.T) {
			path, _ := serve(t, vhostuser.Config{Device: &echo{}})
			f := dial(t, path, o)
			before := mappings(t)
			for range 20 {
				_, err := f.Driver().Add([][]byte{[]byte("moving")}, []int{16}, false)
				must(t, err)
				f.KickIfNeeded()
				must(t, f.SetMemTable(f.Region()))
				wantUsed(t, f, "moving")
			}
			if after := mappings(t); after != before {
				t.Errorf("%d mappings after replacing the table, want %d", after, before)
			}
		})
	}
}
