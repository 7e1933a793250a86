// SPDX-License-Identifier: Apache-2.0

package virtqueue

// position is a slot of a packed ring together with the wrap counter of the lap
// (VIRTIO 1.3 2.8.1). The event suppression structure and vhost-user's vring
// base encode it alike: slot in bits 0-14, wrap counter in bit 15.
type position struct {
	slot uint16
	wrap bool
}

func decodePosition(v uint16) position { return position{slot: v & 0x7fff, wrap: v>>15 != 0} }

func (p position) encode() uint16 {
	if p.wrap {
		return p.slot | 1<<15
	}
	return p.slot
}

// advance moves n <= size slots on; passing the ring's end flips the counter.
func (p position) advance(n, size uint16) position {
	p.slot += n // at most 65534: both are at most 32768, and slot is below size
	if p.slot >= size {
		p.slot -= size
		p.wrap = !p.wrap
	}
	return p
}

// since returns how many slots p is ahead of o, from 0 to 2*size-1: positions
// repeat every two laps.
func (p position) since(o position, size uint16) uint32 {
	laps := 2 * uint32(size)
	return (p.linear(size) + laps - o.linear(size)) % laps
}

// linear numbers the positions of two laps from 0 to 2*size-1.
func (p position) linear(size uint16) uint32 {
	if p.wrap {
		return uint32(p.slot)
	}
	return uint32(p.slot) + uint32(size)
}
