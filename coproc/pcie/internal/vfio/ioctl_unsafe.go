// SPDX-License-Identifier: Apache-2.0

package vfio

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctl makes a request whose argument is a number, or none.
func ioctl(fd int, req, arg uintptr) (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, arg)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// ioctlBytes makes a request whose argument is a structure, which the kernel
// reads and may change.
func ioctlBytes(fd int, req uintptr, b []byte) (int, error) {
	// SAFETY: the kernel uses no more than the structure, which is all of b: its
	// size is fixed by the request, or is its own first word. b lives until
	// the call returns.
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(unsafe.Pointer(unsafe.SliceData(b))))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// addressOf gives the address of mapped memory, which does not move.
func addressOf(mem []byte) uint64 {
	// SAFETY: only a number is made of the pointer, for memory outside of Go's
	// heap, which stays mapped until the IOMMU has let go of it.
	return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(mem))))
}
