// SPDX-License-Identifier: Apache-2.0

package vhostusertest

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Memory is shared memory behind a memfd: guest RAM or a dirty log.
type Memory struct {
	FD    int
	Bytes []byte
}

// NewMemory makes n bytes of zeroed shared memory.
func NewMemory(n int) (*Memory, error) {
	fd, err := unix.MemfdCreate("vhostusertest", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("vhostusertest: memfd_create: %w", err)
	}
	if err := unix.Ftruncate(fd, int64(n)); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("vhostusertest: ftruncate: %w", err)
	}
	b, err := unix.Mmap(fd, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("vhostusertest: mmap: %w", err)
	}
	return &Memory{fd, b}, nil
}

// Close releases the memory; a second call does nothing.
func (m *Memory) Close() {
	if m.Bytes == nil {
		return
	}
	_ = unix.Munmap(m.Bytes)
	_ = unix.Close(m.FD)
	m.Bytes, m.FD = nil, -1
}

// Eventfd makes a non-blocking eventfd, as QEMU does.
func Eventfd() (int, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return -1, fmt.Errorf("vhostusertest: eventfd: %w", err)
	}
	return fd, nil
}
