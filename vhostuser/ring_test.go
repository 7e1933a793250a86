// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"bytes"
	"fmt"
	"testing"

	"hwvtpm/vhostuser"
	"hwvtpm/vhostuser/vhostusertest"
	"hwvtpm/virtqueue"
	"hwvtpm/virtqueue/queuetest"
)

// layouts are all ring layouts that a guest can choose.
func layouts() map[string]vhostusertest.Options {
	m := make(map[string]vhostusertest.Options)
	for i := range 8 {
		o := vhostusertest.Options{Packed: i&1 != 0, EventIdx: i&2 != 0, Indirect: i&4 != 0}
		m[fmt.Sprintf("packed=%t,event_idx=%t,indirect=%t", o.Packed, o.EventIdx, o.Indirect)] = o
	}
	return m
}

func TestExchangeAllLayouts(t *testing.T) {
	for name, o := range layouts() {
		t.Run(name, func(t *testing.T) {
			path, _ := serve(t, vhostuser.Config{Device: &echo{}})
			o.QueueSize = 8 // so that the ring wraps
			f := dial(t, path, o)
			for i := range 50 {
				exchange(t, f, fmt.Appendf(nil, "request %d of %s", i, name))
			}
		})
	}
}

func exchange(t testing.TB, f *vhostusertest.Frontend, req []byte) {
	t.Helper()
	resp, err := f.Exchange(req, 512)
	if err != nil {
		t.Fatalf("Exchange(%q): %v", req, err)
	}
	if !bytes.Equal(resp, req) {
		t.Fatalf("Exchange(%q) = %q", req, resp)
	}
}

func TestPipelinedRequests(t *testing.T) {
	for name, o := range layouts() {
		t.Run(name, func(t *testing.T) {
			path, _ := serve(t, vhostuser.Config{Device: &echo{}})
			f := dial(t, path, o)
			for round := range 5 {
				for i := range 10 {
					req := fmt.Appendf(nil, "%d/%d", round, i)
					if _, err := f.Driver().Add([][]byte{req[:1], req[1:]}, []int{1, 511}, o.Indirect); err != nil {
						t.Fatal(err)
					}
				}
				f.KickIfNeeded()
				for i := range 10 {
					_, _, resp, err := f.Await()
					if want := fmt.Sprintf("%d/%d", round, i); err != nil || string(resp) != want {
						t.Fatalf("Await() = %q, %v, want %q", resp, err, want)
					}
				}
			}
		})
	}
}

// TestOutIsZeroed: no request sees what an earlier one wrote.
func TestOutIsZeroed(t *testing.T) {
	dirty := make(chan int, 8)
	dev := &echo{onHandle: func(req *virtqueue.Request) {
		n := 0
		for i, b := range req.Out {
			if b != 0 {
				n++
			}
			req.Out[i] = 0xee
		}
		dirty <- n
	}}
	path, _ := serve(t, vhostuser.Config{Device: dev})
	f := dial(t, path, vhostusertest.Options{})
	for range 3 {
		exchange(t, f, []byte("x"))
		if n := <-dirty; n != 0 {
			t.Errorf("%d bytes of an earlier request", n)
		}
	}
}

// TestKicksAreWantedOnlyWhenIdle looks at what the device asks of the driver.
func TestKicksAreWantedOnlyWhenIdle(t *testing.T) {
	dev := newBlocking()
	path, _ := serve(t, vhostuser.Config{Device: dev})
	f := dial(t, path, vhostusertest.Options{})
	wanted := func() bool { return f.Driver().UsedFlags()&queuetest.UsedNoNotify == 0 }
	dev.submit(t, f, "x")
	if wanted() {
		t.Error("the device wants kicks while it is busy")
	}
	dev.free()
	wantUsed(t, f, "x")
	eventually(t, "the idle device wants kicks", wanted)
}

func TestRequestPathDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates on its own")
	}
	for name, o := range layouts() {
		t.Run(name, func(t *testing.T) {
			path, _ := serve(t, vhostuser.Config{Device: &echo{}})
			f := dial(t, path, o)
			req, resp := []byte("some request"), make([]byte, 512)
			n := testing.AllocsPerRun(200, func() {
				if _, err := f.ExchangeInto(req, resp); err != nil {
					t.Fatal(err)
				}
			})
			if n != 0 {
				t.Errorf("%v allocations per request, want 0", n)
			}
		})
	}
}

func BenchmarkKickToCall(b *testing.B) {
	for _, packed := range []bool{false, true} {
		b.Run(fmt.Sprintf("packed=%t", packed), func(b *testing.B) {
			path, _ := serve(b, vhostuser.Config{Device: &echo{}})
			f := dial(b, path, vhostusertest.Options{Packed: packed, EventIdx: true})
			req, resp := make([]byte, 64), make([]byte, 4096)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := f.ExchangeInto(req, resp); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
