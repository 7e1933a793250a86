// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"hwvtpm/vhostuser"
	"hwvtpm/vhostuser/vhostusertest"
)

// area is a split queue's region as the spec lays it out, seen from outside.
type area []byte

func (a area) set16(off int, v uint16) { binary.NativeEndian.PutUint16(a[off:], v) }
func (a area) get16(off int) uint16    { return binary.NativeEndian.Uint16(a[off:]) }

func (a area) version() uint16      { return a.get16(8) }
func (a area) descNum() uint16      { return a.get16(10) }
func (a area) usedIdx() uint16      { return a.get16(14) }
func (a area) counter(i int) uint64 { return binary.NativeEndian.Uint64(a[16+16*i+8:]) }

// count returns how many requests are in flight.
func (a area) count() int {
	n := 0
	for i := range int(a.descNum()) {
		n += int(a[16+16*i])
	}
	return n
}

// submit marks head i as fetched, as the counter-th.
func (a area) submit(i int, counter uint64) {
	a[16+16*i] = 1
	binary.NativeEndian.PutUint64(a[16+16*i+8:], counter)
}

// mapArea maps the area that the front-end holds.
func mapArea(t *testing.T, f *vhostusertest.Frontend) area {
	t.Helper()
	b, err := unix.Mmap(f.Area.FD, 0, int(f.Area.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	t.Cleanup(func() { _ = unix.Munmap(b) })
	return b
}

// TestInflightTracking watches the shared area while requests run.
func TestInflightTracking(t *testing.T) {
	dev := newBlocking()
	path, _ := serve(t, vhostuser.Config{Device: dev})
	f := dial(t, path, vhostusertest.Options{Inflight: true, QueueSize: 8})
	a := mapArea(t, f)
	if a.version() != 1 || a.descNum() != 8 || a.usedIdx() != 0 {
		t.Errorf("fresh area: version %d, %d descriptors, used index %d, want 1, 8, 0", a.version(), a.descNum(), a.usedIdx())
	}
	dev.submit(t, f, "one")
	if n := a.count(); n != 1 {
		t.Errorf("%d requests marked in flight while one is handled", n)
	}
	head := slices.IndexFunc([]int{0, 1, 2, 3, 4, 5, 6, 7}, func(i int) bool { return a[16+16*i] == 1 })
	a.set16(12, 7) // no head of ours: to see it replaced
	dev.free()
	wantUsed(t, f, "one")
	if got := int(a.get16(12)); got != head {
		t.Errorf("last batch begins at %d, want the head %d", got, head)
	}
	if got := a.get16(16 + 16*head + 6); got != 7 {
		t.Errorf("last batch goes on at %d, want 7", got)
	}
	for range 20 {
		exchange(t, f, []byte("more"))
	}
	must(t, f.Stop())
	if n := a.count(); n != 0 {
		t.Errorf("%d requests marked in flight in a stopped ring", n)
	}
	if a.usedIdx() != 21 {
		t.Errorf("used index %d, want 21", a.usedIdx())
	}
	must(t, f.Continue())
	exchange(t, f, []byte("goes on"))
}

// crashed lets a guest offer requests to a back-end that then dies: write
// says what it left in the area, with its two requests fetched.
func crashed(t *testing.T, path string, write func(f *vhostusertest.Frontend, a area)) (*vhostusertest.Frontend, error) {
	t.Helper()
	f := dial(t, path, vhostusertest.Options{Inflight: true, QueueSize: 8})
	a := mapArea(t, f)
	must(t, f.Stop())
	for _, req := range []string{"one", "two"} {
		_, err := f.Driver().Add([][]byte{[]byte(req)}, nil, false)
		must(t, err)
	}
	write(f, a)
	return f, f.Reconnect(path)
}

// TestInflightResubmission: "Resubmit inflight entries in order of their counter value".
func TestInflightResubmission(t *testing.T) {
	dev := &echo{}
	path, _ := serve(t, vhostuser.Config{Device: dev})
	f, err := crashed(t, path, func(_ *vhostusertest.Frontend, a area) {
		a.submit(0, 7)
		a.submit(1, 8)
	})
	must(t, err)
	for range 2 {
		if _, _, _, err := f.Await(); err != nil {
			t.Fatal(err)
		}
	}
	if n := dev.handled.Load(); n != 2 {
		t.Errorf("%d requests handled, want 2", n)
	}
	exchange(t, f, []byte("and on"))
	a := mapArea(t, f)
	if a.usedIdx() != 3 || a.counter(0) < 9 && a.counter(1) < 9 {
		t.Errorf("used index %d, counters %d and %d: the counter did not go on", a.usedIdx(), a.counter(0), a.counter(1))
	}
}

// TestInflightLastBatch: what was used just before the crash is not repeated.
func TestInflightLastBatch(t *testing.T) {
	dev := &echo{}
	path, _ := serve(t, vhostuser.Config{Device: dev})
	f, err := crashed(t, path, func(f *vhostusertest.Frontend, a area) {
		a.submit(0, 7)
		a.submit(1, 8)
		a.set16(12, 0) // last_batch_head
		binary.NativeEndian.PutUint32(f.Mem.Bytes[f.Driver().Layout().Device+4:], 0)
		f.Driver().SetUsed(0, 1)
	})
	must(t, err)
	for range 2 {
		if _, _, _, err := f.Await(); err != nil {
			t.Fatal(err)
		}
	}
	if n := dev.handled.Load(); n != 1 {
		t.Errorf("%d requests handled, want 1: the other one was used before", n)
	}
}

// TestInflightInconsistent: an area that makes no sense keeps the ring stopped.
func TestInflightInconsistent(t *testing.T) {
	for name, write := range map[string]func(f *vhostusertest.Frontend, a area){
		"version":                 func(_ *vhostusertest.Frontend, a area) { a.set16(8, 2) },
		"descriptor count":        func(_ *vhostusertest.Frontend, a area) { a.set16(10, 9) },
		"used index far ahead":    func(_ *vhostusertest.Frontend, a area) { a.set16(14, 100) },
		"order of another device": func(_ *vhostusertest.Frontend, a area) { a.submit(1, 1) },
		"head out of range": func(f *vhostusertest.Frontend, a area) {
			a.set16(12, 8)
			f.Driver().SetUsed(0, 1)
		},
		"next out of range": func(f *vhostusertest.Frontend, a area) {
			a.set16(16+6, 0xffff)
			f.Driver().SetUsed(0, 2)
		},
	} {
		t.Run(name, func(t *testing.T) {
			path, _ := serve(t, vhostuser.Config{Device: &echo{}})
			f, err := crashed(t, path, write)
			if !errors.Is(err, vhostusertest.ErrRefused) {
				t.Errorf("start with a bad area = %v, want a refusal", err)
			}
			f.Close()
			exchangeOnce(t, path)
		})
	}
}

// TestInflightDeclinedForPacked: the area is for split rings only.
func TestInflightDeclinedForPacked(t *testing.T) {
	path, _ := serve(t, vhostuser.Config{Device: &echo{}})
	f := dial(t, path, vhostusertest.Options{Inflight: true, Packed: true})
	if f.Area.FD != -1 || f.Area.Size != 0 {
		t.Errorf("area %+v for a packed ring, want none", f.Area)
	}
	exchange(t, f, []byte("x"))
}

func TestInflightHostileSizes(t *testing.T) {
	path, _ := serve(t, vhostuser.Config{Device: &echo{}})
	f := realized(t, path, vhostusertest.Options{})
	for _, d := range [][2]uint16{{0, 64}, {2, 64}, {1, 0}, {1, 1025}, {0xffff, 0xffff}} {
		if got, err := f.GetInflightFD(d[0], d[1]); err != nil || got.FD != -1 || got.Size != 0 {
			t.Errorf("GetInflightFD(%d, %d) = %+v, %v, want none", d[0], d[1], got, err)
		}
	}
	d, err := f.GetInflightFD(1, 64)
	must(t, err)
	defer unix.Close(d.FD)
	d.Size += page
	if err := f.SetInflightFD(d); !errors.Is(err, vhostusertest.ErrRefused) {
		t.Errorf("area larger than its file = %v, want a refusal", err)
	}
	d.Size, d.QueueSize = 64, 64 // too small for the queue: found when the ring starts
	must(t, f.SetInflightFD(d))
	if err := f.Start(); !errors.Is(err, vhostusertest.ErrRefused) {
		t.Errorf("start with a small area = %v, want a refusal", err)
	}
}

// TestReconnectKeepsPlace: the guest's ring goes on over sessions.
func TestReconnectKeepsPlace(t *testing.T) {
	for name, o := range layouts() {
		t.Run(name, func(t *testing.T) {
			path, _ := serve(t, vhostuser.Config{Device: &echo{}})
			o.QueueSize, o.Inflight = 4, true
			f := dial(t, path, o)
			for range 3 {
				for range 3 {
					exchange(t, f, []byte("ping"))
				}
				must(t, f.Reconnect(path))
			}
			exchange(t, f, []byte("pong"))
		})
	}
}
