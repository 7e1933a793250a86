// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/vhostuser"
	"hwvtpm/vhostuser/vhostusertest"
	"hwvtpm/virtqueue"
)

// blocking is an echo whose Handle blocks until release is closed.
type blocking struct {
	echo
	entered, release chan struct{}
	once             sync.Once
}

func newBlocking() *blocking {
	b := &blocking{entered: make(chan struct{}, 1), release: make(chan struct{})}
	b.onHandle = func(*virtqueue.Request) {
		select {
		case b.entered <- struct{}{}:
		default: // nobody waits any more
		}
		<-b.release
	}
	b.onHurry = func(int) { b.free() }
	return b
}

func (b *blocking) free() { b.once.Do(func() { close(b.release) }) }

// submit gives the device a request and waits until Handle runs.
func (b *blocking) submit(t *testing.T, f *vhostusertest.Frontend, req string) {
	t.Helper()
	_, err := f.Driver().Add([][]byte{[]byte(req)}, []int{64}, false)
	must(t, err)
	f.KickIfNeeded()
	select {
	case <-b.entered:
	case <-time.After(hangGuard):
		t.Fatal("Handle is not called")
	}
}

func wantUsed(t *testing.T, f *vhostusertest.Frontend, want string) {
	t.Helper()
	if _, _, resp, err := f.Await(); err != nil || string(resp) != want {
		t.Errorf("used: %q, %v, want %q", resp, err, want)
	}
}

// TestStopInterruptsHandle: GET_VRING_BASE waits for the request in flight,
// hurries the device after the grace time, and the result is not lost.
func TestStopInterruptsHandle(t *testing.T) {
	dev := newBlocking()
	path, _ := serve(t, vhostuser.Config{Device: dev, StopGrace: time.Millisecond})
	f := dial(t, path, vhostusertest.Options{})
	dev.submit(t, f, "slow")
	base, err := f.GetVringBase(0)
	must(t, err)
	if base != 1 {
		t.Errorf("vring base %d, want 1: the request is complete", base)
	}
	if n := dev.hurries.Load(); n != 1 {
		t.Errorf("Interrupt called %d times, want 1", n)
	}
	if starts, stops := dev.starts.Load(), dev.stops.Load(); starts != 1 || stops != 1 {
		t.Errorf("%d starts, %d stops, want 1 and 1", starts, stops)
	}
	wantUsed(t, f, "slow")
}

// TestStopWithinGrace: a Handle that returns in time is not interrupted.
func TestStopWithinGrace(t *testing.T) {
	dev := newBlocking()
	dev.onStop = func(int) {
		if n := dev.hurries.Load(); n != 0 {
			t.Errorf("Interrupt called %d times", n)
		}
	}
	path, _ := serve(t, vhostuser.Config{Device: dev, StopGrace: hangGuard})
	f := dial(t, path, vhostusertest.Options{})
	dev.submit(t, f, "slow")
	time.AfterFunc(5*time.Millisecond, dev.free)
	must(t, f.Stop())
	wantUsed(t, f, "slow")
}

// TestHangUpWhileHandling: the session waits for the device before the next
// session may have it.
func TestHangUpWhileHandling(t *testing.T) {
	dev := newBlocking()
	path, _ := serve(t, vhostuser.Config{Device: dev, StopGrace: time.Millisecond})
	f := dial(t, path, vhostusertest.Options{})
	dev.submit(t, f, "slow")
	f.Close()
	g := dial(t, path, vhostusertest.Options{})
	exchange(t, g, []byte("next"))
	if n := dev.stops.Load(); n != 1 {
		t.Errorf("%d stops before the second session, want 1", n)
	}
}

// TestCloseWhileHandling: Close hurries the device at once, from any number
// of goroutines, and returns when all is over.
func TestCloseWhileHandling(t *testing.T) {
	dev := newBlocking()
	path, srv := serve(t, vhostuser.Config{Device: dev, StopGrace: time.Hour})
	f := dial(t, path, vhostusertest.Options{})
	dev.submit(t, f, "slow")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := srv.Close(); err != nil {
				t.Errorf("Close() = %v", err)
			}
			if starts, stops := dev.starts.Load(), dev.stops.Load(); starts != stops {
				t.Errorf("Close returned with %d starts and %d stops", starts, stops)
			}
		})
	}
	wg.Wait()
	if _, err := f.GetStatus(); !errors.Is(err, io.EOF) && !errors.Is(err, unix.EPIPE) {
		t.Errorf("after Close: %v, want a closed connection", err)
	}
	if err := srv.Serve(context.Background(), nil); !errors.Is(err, vhostuser.ErrClosed) {
		t.Errorf("Serve after Close = %v, want ErrClosed", err)
	}
}

// TestChangesWhileHandling: the session goes on while Handle runs.
func TestChangesWhileHandling(t *testing.T) {
	dev := newBlocking()
	dev.onConfig = func(uint32, []byte) error { dev.free(); return nil }
	path, _ := serve(t, vhostuser.Config{Device: dev, StopGrace: time.Hour})
	f := dial(t, path, vhostusertest.Options{})
	dev.submit(t, f, "slow")

	// A new call descriptor, and the same memory at another place in ours.
	call, err := vhostusertest.Eventfd()
	must(t, err)
	defer unix.Close(call)
	must(t, f.SetVringCall(0, call))
	must(t, f.SetMemTable(f.Region()))
	must(t, f.SetConfig(4, []byte{1, 0, 0, 0})) // cancel: lets Handle return
	must(t, vhostusertest.WaitEvent(call, hangGuard))
	wantUsed(t, f, "slow")
	if n := dev.hurries.Load(); n != 0 {
		t.Errorf("Interrupt called %d times", n)
	}
}

// handledWithoutMemory has a device handle a request whose memory goes away
// meanwhile, so that the result cannot be written.
func handledWithoutMemory(t *testing.T) (*blocking, *vhostusertest.Frontend) {
	t.Helper()
	dev := newBlocking()
	path, _ := serve(t, vhostuser.Config{Device: dev})
	f := realized(t, path, vhostusertest.Options{})
	must(t, f.Start())
	dev.submit(t, f, "slow")
	must(t, f.RemMemReg(f.Region()))
	dev.free()
	return dev, f
}

// TestMemoryGoneWhileHandling: the result waits until guest memory is back.
func TestMemoryGoneWhileHandling(t *testing.T) {
	_, f := handledWithoutMemory(t)
	must(t, f.AddMemReg(f.Region()))
	wantUsed(t, f, "slow")
	must(t, f.RemMemReg(f.Region()))
	must(t, f.SetVringEnable(0, false))
	if base, err := f.GetVringBase(0); err != nil || base != 1 {
		t.Errorf("GET_VRING_BASE without memory = %d, %v, want 1", base, err)
	}
}

// TestStopWhileMemoryGone: a ring that waits for its memory can be stopped.
func TestStopWhileMemoryGone(t *testing.T) {
	dev, f := handledWithoutMemory(t)
	_, err := f.GetVringBase(0)
	must(t, err)
	if n := dev.stops.Load(); n != 1 {
		t.Errorf("%d stops, want 1", n)
	}
}

// TestStopContinueRestart: a stop keeps the ring's place, a rebind does not.
func TestStopContinueRestart(t *testing.T) {
	for name, o := range layouts() {
		t.Run(name, func(t *testing.T) {
			starts := make(chan uint32, 8)
			dev := &echo{onStart: func(_ int, _ uint64, base uint32) error { starts <- base; return nil }}
			path, _ := serve(t, vhostuser.Config{Device: dev})
			o.QueueSize = 4
			f := dial(t, path, o)
			for range 3 {
				exchange(t, f, []byte("a"))
				exchange(t, f, []byte("b"))
				exchange(t, f, []byte("c"))
				must(t, f.Stop())
				must(t, f.Continue())
			}
			must(t, f.Restart())
			exchange(t, f, []byte("d"))
			got := []uint32{<-starts, <-starts, <-starts, <-starts, <-starts}
			if want := wantBases(o); !slices.Equal(got, want) {
				t.Errorf("rings started at %#x, want %#x", got, want)
			}
		})
	}
}

// wantBases are the places of the rings in TestStopContinueRestart: after 0,
// 3, 6 and 9 requests in a ring of four, and then of a fresh one.
func wantBases(o vhostusertest.Options) []uint32 {
	switch {
	case !o.Packed:
		return []uint32{0, 3, 6, 9, 0}
	case o.Indirect: // one slot per request; bit 15 and 31 are the wrap counters
		return []uint32{0x80008000, 0x80038003, 0x00020002, 0x80018001, 0x80008000}
	default: // two slots per request
		return []uint32{0x80008000, 0x00020002, 0x00000000, 0x80028002, 0x80008000}
	}
}

// TestStartRefusedByDevice keeps the ring stopped, and the session alive.
func TestStartRefusedByDevice(t *testing.T) {
	var agree atomic.Bool
	dev := &echo{onStart: func(int, uint64, uint32) error {
		if !agree.Load() {
			return errors.New("not now")
		}
		return nil
	}}
	path, _ := serve(t, vhostuser.Config{Device: dev})
	f := realized(t, path, vhostusertest.Options{})
	if err := f.Start(); !errors.Is(err, vhostusertest.ErrRefused) {
		t.Fatalf("Start() = %v, want a refusal", err)
	}
	if n := dev.stops.Load(); n != 0 {
		t.Errorf("Stop called %d times for a ring that never started", n)
	}
	agree.Store(true)
	must(t, f.Stop())
	must(t, f.Continue())
	exchange(t, f, []byte("now"))
}

func TestOneSessionAtATime(t *testing.T) {
	srv, err := vhostuser.NewServer(vhostuser.Config{Device: &echo{}})
	must(t, err)
	defer srv.Close()
	first, second := pair(t), pair(t)
	done := make(chan error, 1)
	go func() { done <- srv.ServeConn(context.Background(), first[0]) }()
	c := vhostusertest.Conn{Sock: first[1], Timeout: hangGuard}
	if _, err := c.GetFeatures(); err != nil {
		t.Fatal(err)
	}
	if err := srv.ServeConn(context.Background(), second[0]); !errors.Is(err, vhostuser.ErrBusy) {
		t.Errorf("second ServeConn() = %v, want ErrBusy", err)
	}
	_ = first[1].Close()
	if err := <-done; err != nil {
		t.Errorf("ServeConn() = %v after a clean hang-up, want nil", err)
	}
}

// pair returns two connected sockets.
func pair(t testing.TB) [2]*net.UnixConn {
	t.Helper()
	path, err := net.ListenUnix("unix", &net.UnixAddr{Name: "", Net: "unix"})
	must(t, err)
	defer path.Close()
	a, err := net.DialUnix("unix", nil, path.Addr().(*net.UnixAddr))
	must(t, err)
	b, err := path.AcceptUnix()
	must(t, err)
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return [2]*net.UnixConn{b, a}
}

// TestContextEndsServe: the end of the context is a clean end.
func TestContextEndsServe(t *testing.T) {
	srv, err := vhostuser.NewServer(vhostuser.Config{Device: &echo{}})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	p := pair(t)
	done := make(chan error, 1)
	go func() { done <- srv.ServeConn(ctx, p[0]) }()
	c := vhostusertest.Conn{Sock: p[1], Timeout: hangGuard}
	if _, err := c.GetFeatures(); err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("ServeConn() = %v, want nil", err)
		}
	case <-time.After(hangGuard):
		t.Fatal("ServeConn does not return")
	}
}
