// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/pcie"
)

// taps counts the interrupts of all transports of one driver, and lets a test
// at the newest.
type taps struct {
	open  pcie.Opener
	count atomic.Uint64 // of interrupts for slots

	mu     sync.Mutex
	newest pcie.Transport
}

func (s *taps) Open(onEnd func()) (pcie.Transport, error) {
	t, err := s.open(onEnd)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.newest = t
	return &tap{Transport: t, taps: s}, nil
}

// transport is what the driver uses now.
func (s *taps) transport() pcie.Transport {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newest
}

// tap stands between the kernel's interrupts and the driver.
type tap struct {
	pcie.Transport
	taps *taps

	mu    sync.Mutex
	files []*os.File
	wg    sync.WaitGroup
}

// SetVectors hands other events to the kernel, and passes on what they get.
// Vector 0 is the admin queue's, and left as it is.
func (t *tap) SetVectors(events []int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	mine := []int{events[0]}
	for _, event := range events[1:] {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), "interrupt")
		t.files = append(t.files, f)
		mine = append(mine, fd)
		t.wg.Go(func() { pass(f, event, &t.taps.count) })
	}
	return t.Transport.SetVectors(mine)
}

// pass passes on and counts events until f is closed.
func pass(f *os.File, to int, count *atomic.Uint64) {
	var b [8]byte
	for {
		if _, err := f.Read(b[:]); err != nil {
			return
		}
		count.Add(binary.NativeEndian.Uint64(b[:]))
		unix.Write(to, b[:])
	}
}

// Close ends the transport before the events that it uses.
func (t *tap) Close() error {
	err := t.Transport.Close()
	t.mu.Lock()
	for _, f := range t.files {
		f.Close()
	}
	t.mu.Unlock()
	t.wg.Wait()
	return err
}
