// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"errors"
	"fmt"
	"math"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"hwvtpm/vhostuser"
	"hwvtpm/vhostuser/vhostusertest"
)

// TestHostileRingSetup: what the guest chooses is refused when the ring
// starts, and the session lives.
func TestHostileRingSetup(t *testing.T) {
	const user = vhostusertest.UserBase
	for name, tc := range map[string]struct {
		size                uint32
		desc, used, avail   uint64
		withoutMem, noSetup bool
	}{
		"size 0":                 {size: 0, desc: user, used: user + 4096, avail: user + 8192},
		"size not a power of 2":  {size: 3, desc: user, used: user + 4096, avail: user + 8192},
		"size over the limit":    {size: 2048, desc: user, used: user + 1<<17, avail: user + 1<<18},
		"size of 32 bits":        {size: 1<<16 | 64, desc: user, used: user + 4096, avail: user + 8192},
		"descriptors nowhere":    {size: 64, desc: 0x1000, used: user + 4096, avail: user + 8192},
		"used ring crosses end":  {size: 64, desc: user, used: user + 1<<20 - 16, avail: user + 8192},
		"available ring at end":  {size: 64, desc: user, used: user + 4096, avail: user + 1<<20},
		"addresses overflow":     {size: 64, desc: math.MaxUint64 - 15, used: user, avail: user},
		"misaligned descriptors": {size: 64, desc: user + 1, used: user + 4096, avail: user + 8192},
		"guest addresses":        {size: 64, desc: vhostusertest.GuestBase, used: vhostusertest.GuestBase + 4096, avail: vhostusertest.GuestBase + 8192},
		"no memory":              {size: 64, desc: user, used: user + 4096, avail: user + 8192, withoutMem: true},
		"no setup at all":        {noSetup: true},
	} {
		t.Run(name, func(t *testing.T) {
			dev := &echo{}
			path, _ := serve(t, vhostuser.Config{Device: dev})
			f := realized(t, path, vhostusertest.Options{})
			must(t, f.SetFeatures(f.Accepted()))
			if !tc.withoutMem {
				must(t, f.SetMemTable(f.Region()))
			}
			if !tc.noSetup {
				must(t, f.SetVringNum(0, tc.size))
				must(t, f.SetVringAddr(0, 0, tc.desc, tc.used, tc.avail, 0))
			}
			must(t, f.SetVringKick(0, f.Kick))
			if err := f.SetVringEnable(0, true); !errors.Is(err, vhostusertest.ErrRefused) {
				t.Errorf("SET_VRING_ENABLE = %v, want a refusal", err)
			}
			must(t, vhostusertest.WaitEvent(f.Err, hangGuard))
			if _, err := f.GetVringBase(0); err != nil {
				t.Errorf("GET_VRING_BASE: %v", err)
			}
			if n := dev.starts.Load(); n != 0 {
				t.Errorf("device was started %d times", n)
			}
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestTruncatedMemory: a front-end that cuts the file behind guest memory
// breaks its ring and nothing else.
func TestTruncatedMemory(t *testing.T) {
	for name, o := range layouts() {
		t.Run(name, func(t *testing.T) {
			path, _ := serve(t, vhostuser.Config{Device: &echo{}})
			f := dial(t, path, o)
			exchange(t, f, []byte("before"))
			must(t, unix.Ftruncate(f.Mem.FD, 0))
			vhostusertest.Signal(f.Kick)
			must(t, vhostusertest.WaitEvent(f.Err, hangGuard))
			if _, err := f.GetVringBase(0); err != nil {
				t.Fatalf("GET_VRING_BASE of a broken ring: %v", err)
			}
			f.Close()
			exchangeOnce(t, path)
		})
	}
}

// TestTruncatedBeforeStart: the same while the session goroutine looks.
func TestTruncatedBeforeStart(t *testing.T) {
	path, _ := serve(t, vhostuser.Config{Device: &echo{}})
	f := dial(t, path, vhostusertest.Options{Inflight: true})
	must(t, f.Stop())
	must(t, f.SetMemTable(f.Region()))
	if err := unix.Ftruncate(f.Area.FD, 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("truncating the in-flight area = %v, want EPERM: it is sealed", err)
	}
	must(t, unix.Ftruncate(f.Mem.FD, 0))
	must(t, f.SetVringKick(0, f.Kick))
	if err := f.SetVringEnable(0, true); !errors.Is(err, vhostusertest.ErrRefused) {
		t.Errorf("SET_VRING_ENABLE = %v, want a refusal", err)
	}
	f.Close()
	exchangeOnce(t, path)
}

// TestBrokenRingStaysBroken until it is stopped and set up again.
func TestBrokenRingStaysBroken(t *testing.T) {
	path, _ := serve(t, vhostuser.Config{Device: &echo{}})
	f := dial(t, path, vhostusertest.Options{})
	f.Driver().SetAvailIdx(f.Driver().AvailIdx() + 1000) // more entries than the ring has
	vhostusertest.Signal(f.Kick)
	must(t, vhostusertest.WaitEvent(f.Err, hangGuard))
	if err := f.SetVringEnable(0, true); !errors.Is(err, vhostusertest.ErrRefused) {
		t.Errorf("SET_VRING_ENABLE = %v, want a refusal", err)
	}
	must(t, f.SetVringEnable(0, false))
	must(t, f.Restart())
	exchange(t, f, []byte("a new ring"))
}

// TestHostileEvents passes event descriptors that could block or spin.
func TestHostileEvents(t *testing.T) {
	t.Run("blocking call eventfd that is full", func(t *testing.T) {
		path, _ := serve(t, vhostuser.Config{Device: &echo{}})
		f := dial(t, path, vhostusertest.Options{})
		full, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
		must(t, err)
		defer unix.Close(full)
		b := vhostusertest.U64(math.MaxUint64 - 1)
		_, err = unix.Write(full, b)
		must(t, err)
		must(t, f.SetVringCall(0, full))
		_, err = f.Driver().Add([][]byte{{1}}, []int{1}, false)
		must(t, err)
		f.KickIfNeeded()
		eventually(t, "the request is served", func() bool { _, _, _, ok := f.Driver().Poll(); return ok })
		must(t, f.Stop())
	})
	t.Run("blocking kick eventfd", func(t *testing.T) {
		path, _ := serve(t, vhostuser.Config{Device: &echo{}})
		f := dial(t, path, vhostusertest.Options{})
		blocking, err := unix.Eventfd(1, unix.EFD_CLOEXEC)
		must(t, err)
		defer unix.Close(blocking)
		must(t, f.SetVringKick(0, blocking))
		must(t, f.Stop())
	})
	t.Run("pipe whose writer is gone", func(t *testing.T) {
		path, _ := serve(t, vhostuser.Config{Device: &echo{}})
		f := dial(t, path, vhostusertest.Options{})
		r, w, err := os.Pipe()
		must(t, err)
		must(t, f.SetVringKick(0, int(r.Fd())))
		must(t, w.Close())
		must(t, r.Close())
		must(t, f.SetVringKick(0, f.Kick)) // and a good one works again
		exchange(t, f, []byte("kicked"))
		must(t, f.Stop())
	})
	t.Run("call pipe whose reader is gone", func(t *testing.T) {
		path, _ := serve(t, vhostuser.Config{Device: &echo{}})
		f := dial(t, path, vhostusertest.Options{})
		r, w, err := os.Pipe()
		must(t, err)
		must(t, f.SetVringCall(0, int(w.Fd())))
		must(t, r.Close())
		must(t, w.Close())
		_, err = f.Driver().Add([][]byte{{1}}, []int{1}, false)
		must(t, err)
		f.KickIfNeeded()
		eventually(t, "the request is served", func() bool { _, _, _, ok := f.Driver().Poll(); return ok })
		must(t, f.Stop())
	})
}

// TestKickAfterStop: a stopped ring does not process, however often it is kicked.
func TestKickAfterStop(t *testing.T) {
	dev := &echo{}
	path, _ := serve(t, vhostuser.Config{Device: dev})
	f := dial(t, path, vhostusertest.Options{})
	must(t, f.Stop())
	_, err := f.Driver().Add([][]byte{{1}}, []int{1}, false)
	must(t, err)
	vhostusertest.Signal(f.Kick)
	must(t, f.SetVringEnable(0, true)) // no kick descriptor: stays stopped
	if _, err := f.GetStatus(); err != nil {
		t.Fatal(err)
	}
	if n := dev.handled.Load(); n != 0 {
		t.Errorf("a stopped ring handled %d requests", n)
	}
	must(t, f.Continue())
	if _, _, _, err := f.Await(); err != nil {
		t.Errorf("after Continue: %v", err)
	}
}

// TestDisabledRing: SET_VRING_ENABLE 0 pauses, and no kick is lost over it.
func TestDisabledRing(t *testing.T) {
	dev := &echo{}
	path, _ := serve(t, vhostuser.Config{Device: dev})
	f := dial(t, path, vhostusertest.Options{})
	must(t, f.SetVringEnable(0, false))
	for i := range 3 {
		_, err := f.Driver().Add([][]byte{{byte(i)}}, []int{1}, false)
		must(t, err)
		vhostusertest.Signal(f.Kick)
	}
	if _, err := f.GetStatus(); err != nil {
		t.Fatal(err)
	}
	if n := dev.handled.Load(); n != 0 {
		t.Errorf("a disabled ring handled %d requests", n)
	}
	must(t, f.SetVringEnable(0, true))
	for i := range 3 {
		if _, _, resp, err := f.Await(); err != nil || resp[0] != byte(i) {
			t.Errorf("Await() = %v, %v, want %d", resp, err, i)
		}
	}
}

func TestReconnectMany(t *testing.T) {
	dev := &echo{}
	path, _ := serve(t, vhostuser.Config{Device: dev})
	dial(t, path, vhostusertest.Options{}).Close()
	checkLeaks(t, func() {
		for i := range 20 {
			f := dial(t, path, vhostusertest.Options{EventIdx: true})
			exchange(t, f, fmt.Appendf(nil, "session %d", i))
			f.Close()
		}
		eventually(t, "each start has its stop", func() bool { return dev.starts.Load() == dev.stops.Load() })
	})
}
