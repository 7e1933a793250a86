// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// The shared memory.
//
//	0x000000  status page
//	0x001000  sealed permanent state, MaxBlob bytes
//	0x102000  end
const (
	PageSize   = 4096
	BlobOffset = PageSize
	MaxBlob    = 1<<20 + 4096 // libtpms: 176 KiB of NV memory and some overhead
	SharedSize = BlobOffset + MaxBlob
)

// VolatileSize is the size of a slot's volatile file, in bytes.
const VolatileSize = 0x31000

// CreateShared makes shared memory whose size is fixed. Only pages that are
// touched take memory. The caller owns the descriptor.
func CreateShared() (fd int, err error) {
	fd, err = unix.MemfdCreate("hwvtpm-slot", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, fmt.Errorf("make shared memory: %w", err)
	}
	if err = unix.Ftruncate(fd, SharedSize); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("size shared memory: %w", err)
	}
	return fd, nil
}

// MapShared maps shared memory, which must have its full size. The caller unmaps
// it; fd may be closed.
func MapShared(fd int) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("stat shared memory: %w", err)
	}
	if st.Size != SharedSize {
		return nil, fmt.Errorf("shared memory has %d bytes, want %d: %w", st.Size, SharedSize, ErrMalformed)
	}
	mem, err := unix.Mmap(fd, 0, SharedSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map shared memory: %w", err)
	}
	return mem, nil
}
