// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxGroups is the kernel's NGROUPS_MAX.
const maxGroups = 65536

// peerGroups gives the supplementary groups of a socket's peer, for which
// x/sys/unix has no function.
func peerGroups(fd int) ([]uint32, error) {
	for room := 32; ; {
		groups := make([]uint32, room)
		size := uint32(4 * room)
		// SAFETY: the kernel writes at most size bytes to groups, which has
		// 4*room of them, and one word to size. Both outlive the call.
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		got := int(size / 4)
		switch {
		case errno == unix.ERANGE && got > room && got <= maxGroups:
			room = got
		case errno != 0:
			return nil, errno
		default:
			return groups[:min(got, room)], nil
		}
	}
}
