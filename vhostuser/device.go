// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"io"

	"hwvtpm/virtqueue"
)

// Device is a virtio device served by this package. It outlives sessions.
//
// Goroutines: Handle for queue i is called by ring i's own goroutine, so at
// most once at a time per queue. Interrupt, and all else, is called by the
// session goroutine, and may run at the same time as Handle. SaveState and
// LoadState are called by a goroutine of the transfer while no ring runs.
//
// No method may wait for the front-end: it may itself be waiting for a reply.
type Device interface {
	// Features returns the bits of the device type (VIRTIO 1.3 2.2, bits 0
	// to 23). Bits of the transport are added by this package.
	Features() uint64
	// QueueCount returns how many virtqueues the device has, 1 to 256.
	QueueCount() int
	// Limits returns how many bytes of a chain's device-readable and
	// device-writable part Handle needs to see at most.
	Limits() (in, out int)
	// ReadConfig copies config space from offset off to dst, which is zeroed:
	// bytes that the device does not have stay zero. At most 256 bytes.
	ReadConfig(dst []byte, off uint32)
	// WriteConfig is a driver's write to config space.
	WriteConfig(off uint32, src []byte) error
	// Start says that ring queue is about to run with the accepted features,
	// from the vhost-user vring base (see virtqueue.Config.Base). An error
	// keeps the ring stopped and is reported to the front-end.
	Start(queue int, features uint64, base uint32) error
	// Handle serves one request and returns how many bytes of req.Out go to
	// the driver; this is also the used length. It must not retain req.
	Handle(req *virtqueue.Request) (written uint32)
	// Interrupt asks a Handle that outlasts the grace time of a ring stop to
	// return soon. Its result is still given to the driver.
	Interrupt(queue int)
	// Stop says that ring queue has stopped; Handle is not running. Each
	// successful Start is followed by exactly one Stop.
	Stop(queue int)
	// Reset is VHOST_USER_RESET_DEVICE; all rings are stopped.
	Reset() error
	// SaveState writes the device's migration state, at most 16 MiB.
	SaveState(w io.Writer) error
	// LoadState reads the state up to EOF. It must check the state fully
	// before it applies any of it.
	LoadState(r io.Reader) error
}

// Peer is the process at the other end of the socket, as the kernel saw it
// when the connection was made (SO_PEERCRED, unix(7)). A process id can have
// been reused since.
type Peer struct {
	PID      int
	UID, GID uint32
}
