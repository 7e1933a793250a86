// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hwvtpm/vhostuser"
	"hwvtpm/vhostuser/vhostusertest"
	"hwvtpm/virtqueue"
)

// hangGuard is how long a test waits for what must happen.
const hangGuard = 30 * time.Second

// echo is a device that answers a request with its bytes. Its hooks are set
// before the server starts.
type echo struct {
	queues   int
	onHandle func(req *virtqueue.Request)
	onStart  func(queue int, features uint64, base uint32) error
	onStop   func(queue int)
	onHurry  func(queue int)
	onConfig func(off uint32, src []byte) error

	starts, stops, resets, handled, hurries atomic.Int32

	mu    sync.Mutex
	state []byte
}

func (e *echo) Features() uint64      { return 0x7 }
func (e *echo) QueueCount() int       { return max(1, e.queues) }
func (e *echo) Limits() (in, out int) { return 4096, 4096 }

func (e *echo) ReadConfig(dst []byte, off uint32) {
	space := []byte{0, 0x10, 2, 3, 0, 0, 0, 0}
	if int(off) < len(space) {
		copy(dst, space[off:])
	}
}

func (e *echo) WriteConfig(off uint32, src []byte) error {
	if e.onConfig != nil {
		return e.onConfig(off, src)
	}
	if off != 4 {
		return errors.New("read-only")
	}
	return nil
}

func (e *echo) Start(queue int, features uint64, base uint32) error {
	if e.onStart != nil {
		if err := e.onStart(queue, features, base); err != nil {
			return err
		}
	}
	e.starts.Add(1)
	return nil
}

func (e *echo) Handle(req *virtqueue.Request) uint32 {
	e.handled.Add(1)
	if e.onHandle != nil {
		e.onHandle(req)
	}
	return uint32(copy(req.Out, req.In))
}

func (e *echo) Interrupt(queue int) {
	e.hurries.Add(1)
	if e.onHurry != nil {
		e.onHurry(queue)
	}
}

func (e *echo) Stop(queue int) {
	e.stops.Add(1)
	if e.onStop != nil {
		e.onStop(queue)
	}
}

func (e *echo) Reset() error { e.resets.Add(1); return nil }

func (e *echo) SaveState(w io.Writer) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, err := w.Write(e.state)
	return err
}

func (e *echo) LoadState(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.state = b
	return nil
}

// serve runs a server for cfg until the test ends, and returns its socket.
// The test fails if the server does not end.
func serve(t testing.TB, cfg vhostuser.Config) (path string, srv *vhostuser.Server) {
	t.Helper()
	srv, err := vhostuser.NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	// Not t.TempDir: its name may be too long for a socket address.
	dir, err := os.MkdirTemp("", "vu")
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(context.Background(), ln) }()
	t.Cleanup(func() {
		_ = srv.Close()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Serve() = %v, want nil", err)
			}
		case <-time.After(hangGuard):
			t.Error("Serve does not return after Close")
		}
		_ = ln.Close()
		_ = os.RemoveAll(dir)
	})
	return path, srv
}

// dial starts a front-end that ends with the test.
func dial(t testing.TB, path string, o vhostusertest.Options) *vhostusertest.Frontend {
	t.Helper()
	f, err := vhostusertest.Dial(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}
