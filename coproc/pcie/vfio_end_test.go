// SPDX-License-Identifier: Apache-2.0

package pcie

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc"
	"hwvtpm/coproc/pcie/internal/vfio"
)

// fakeKernel is a function of a kernel that is not there.
type fakeKernel struct {
	t       testing.TB
	vectors uint32
	bar     uint64
	fail    error // of SetEvents

	mu     sync.Mutex
	events map[uint32]int // copies of the first eventfd of each type

	users  atomic.Int32
	closed atomic.Int32
}

func newFakeKernel(t testing.TB) *fakeKernel {
	return &fakeKernel{t: t, vectors: vectors, bar: 1 << 20, events: map[uint32]int{}}
}

func (f *fakeKernel) CanReset() bool { return true }

func (f *fakeKernel) Region(uint32) (vfio.Region, error) { return vfio.Region{Size: 256}, nil }

func (f *fakeKernel) OpenBAR(uint32, bool) (*vfio.BAR, error) {
	return &vfio.BAR{Region: vfio.Region{Size: f.bar}}, nil
}

func (f *fakeKernel) Interrupts(uint32) (uint32, error) { return f.vectors, nil }

// SetEvents keeps a copy, as the kernel does.
func (f *fakeKernel) SetEvents(index uint32, fds []int) error {
	f.used()
	fd, err := unix.Dup(fds[0])
	if err != nil {
		f.t.Error(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events[index] = fd
	return f.fail
}

// raise raises an interrupt.
func (f *fakeKernel) raise(index uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	signal(f.events[index])
}

func (f *fakeKernel) ReadRegion(vfio.Region, uint64, []byte) error  { f.used(); return nil }
func (f *fakeKernel) WriteRegion(vfio.Region, uint64, []byte) error { f.used(); return nil }
func (f *fakeKernel) MapDMA(int, uint64, uint64) error              { f.used(); return nil }
func (f *fakeKernel) Reset() error                                  { f.used(); return nil }

// used fails the test if somebody uses what was given back.
func (f *fakeKernel) used() {
	f.users.Add(1)
	defer f.users.Add(-1)
	if f.closed.Load() != 0 {
		f.t.Error("function is used after it was given back")
	}
}

func (f *fakeKernel) Close() {
	if n := f.users.Load(); n != 0 {
		f.t.Errorf("function is given back while %d use it", n)
	}
	f.closed.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fd := range f.events {
		unix.Close(fd)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestKernelFunctionEnds: however it ends, a function is given back once, while
// nobody uses it, and every method says why.
func TestKernelFunctionEnds(t *testing.T) {
	for _, tc := range []struct {
		name string
		end  func(f *fakeKernel, k *kernelFunction)
		want error
	}{
		{"closed", func(_ *fakeKernel, k *kernelFunction) { k.Close() }, coproc.ErrClosed},
		{"unplugged", func(f *fakeKernel, _ *kernelFunction) { f.raise(vfio.IRQRequest) }, endings[endUnplug]},
		{"uncorrectable error", func(f *fakeKernel, _ *kernelFunction) { f.raise(vfio.IRQError) }, endings[endError]},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := openFiles(t)
			f := newFakeKernel(t)
			var ended atomic.Int32
			var k *kernelFunction
			var err error
			set := make(chan struct{})
			k, err = startKernel(f, true, func() {
				<-set
				ended.Add(1)
				if !errors.Is(k.Err(), tc.want) {
					t.Errorf("Err when onEnd is called = %v, want %v", k.Err(), tc.want)
				}
			})
			if err != nil {
				t.Fatalf("startKernel: %v", err)
			}
			close(set)
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() {
					for k.ReadConfig(0, nil) == nil && k.Map(0, 0, 0) == nil && k.Reset() == nil {
					}
				})
			}
			tc.end(f, k)
			wg.Wait()
			for range 3 {
				wg.Go(func() { k.Close() })
			}
			wg.Wait()
			if ended.Load() != 1 || f.closed.Load() != 1 {
				t.Errorf("onEnd called %d times, function given back %d times, want 1", ended.Load(), f.closed.Load())
			}
			checkEnded(t, k, tc.want)
			if after := openFiles(t); after != before {
				t.Errorf("%d files are open, want %d", after, before)
			}
		})
	}
}

// checkEnded checks that every method says why.
func checkEnded(t *testing.T, k *kernelFunction, want error) {
	t.Helper()
	word := make([]byte, 4)
	for name, err := range map[string]error{
		"ReadConfig": k.ReadConfig(0, word), "WriteConfig": k.WriteConfig(0, word),
		"Read": k.Read(0, word), "Post": k.Post(0, word),
		"Map": k.Map(0, 0, 4096), "SetVectors": k.SetVectors(nil), "Reset": k.Reset(),
	} {
		if !errors.Is(err, want) {
			t.Errorf("%s after the end: %v, want %v", name, err, want)
		}
	}
}

// TestKernelFunctionRefused: what is no card is given back.
func TestKernelFunctionRefused(t *testing.T) {
	failure := errors.New("no events")
	for _, tc := range []struct {
		name   string
		change func(f *fakeKernel)
		want   error
	}{
		{"too few vectors", func(f *fakeKernel) { f.vectors = 1 }, errNoCard},
		{"small BAR", func(f *fakeKernel) { f.bar = 4096 }, errNoCard},
		{"no events", func(f *fakeKernel) { f.fail = failure }, failure},
	} {
		before := openFiles(t)
		f := newFakeKernel(t)
		tc.change(f)
		if _, err := startKernel(f, true, func() {}); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
		if after := openFiles(t); f.closed.Load() != 1 || after != before {
			t.Errorf("%s: given back %d times, %d files open, want 1, %d", tc.name, f.closed.Load(), after, before)
		}
	}
}
