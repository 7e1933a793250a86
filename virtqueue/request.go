// SPDX-License-Identifier: Apache-2.0

package virtqueue

// Request is what a device is given of one chain: everything is already copied
// out of guest memory, so the device works on bytes that no longer change.
// Where one descriptor ended and the next began is not in it on purpose:
// a device MUST NOT make assumptions about the arrangement of descriptors
// (VIRTIO 1.3 2.7.4.1).
type Request struct {
	// Queue is the index of the virtqueue the chain came from.
	Queue int
	// In holds the device-readable bytes, at most as many as the device asked to see.
	In []byte
	// InTotal is the full device-readable length of the chain in bytes; if it
	// is above len(In), In was truncated.
	InTotal uint32
	// Out is zeroed staging for the device-writable part: the device fills a
	// prefix and says how long it is. len(Out) is the smaller of OutTotal and
	// the device's limit.
	Out []byte
	// OutTotal is the full device-writable length of the chain in bytes.
	OutTotal uint32
}
