// SPDX-License-Identifier: Apache-2.0

package vhostuser

// logDesc is "log description": where the dirty bitmap lies in the passed fd.
//
//	 0               8               16
//	+---------------+---------------+
//	| log size      | log offset    |
//	+---------------+---------------+
type logDesc struct{ size, offset uint64 }

func parseLogDesc(b []byte) (logDesc, error) {
	if len(b) != 16 {
		return logDesc{}, errSize
	}
	return logDesc{order.Uint64(b), order.Uint64(b[8:])}, nil
}

func (l logDesc) append(dst []byte) []byte {
	return order.AppendUint64(order.AppendUint64(dst, l.size), l.offset)
}

// configAccess is "virtio device config space".
//
//	 0        4        8        12
//	+--------+--------+--------+------------------+
//	| offset | size   | flags  | payload [size]   |
//	+--------+--------+--------+------------------+
type configAccess struct {
	offset, size, flags uint32
	data                []byte // aliases the message
}

const configHeader = 12

func parseConfigAccess(b []byte) (configAccess, error) {
	if len(b) < configHeader {
		return configAccess{}, errSize
	}
	c := configAccess{order.Uint32(b), order.Uint32(b[4:]), order.Uint32(b[8:]), b[configHeader:]}
	if uint64(c.size) != uint64(len(c.data)) || c.size > maxConfigSize || c.offset > maxConfigSize-c.size {
		return configAccess{}, errSize
	}
	return c, nil
}

func (c configAccess) append(dst []byte) []byte {
	for _, v := range [...]uint32{c.offset, c.size, c.flags} {
		dst = order.AppendUint32(dst, v)
	}
	return append(dst, c.data...)
}

// inflightDesc is "inflight description". QEMU sends its C structure, which
// the compiler pads from 20 to 24 bytes in some builds; the tail is ignored.
//
//	 0               8               16         18          20
//	+---------------+---------------+----------+-----------+
//	| mmap size     | mmap offset   |num queues| queue size|
//	+---------------+---------------+----------+-----------+
type inflightDesc struct {
	size, offset      uint64
	queues, queueSize uint16
}

const inflightDescSize = 20

func parseInflightDesc(b []byte) (inflightDesc, error) {
	if len(b) != inflightDescSize && len(b) != inflightDescSize+4 {
		return inflightDesc{}, errSize
	}
	return inflightDesc{order.Uint64(b), order.Uint64(b[8:]), order.Uint16(b[16:]), order.Uint16(b[18:])}, nil
}

func (d inflightDesc) append(dst []byte) []byte {
	dst = order.AppendUint64(order.AppendUint64(dst, d.size), d.offset)
	return order.AppendUint16(order.AppendUint16(dst, d.queues), d.queueSize)
}

// stateTransfer is "device state transfer parameters" of SET_DEVICE_STATE_FD.
//
//	 0          4          8
//	+----------+----------+
//	| direction| phase    |   direction 0 save, 1 load; phase 0 stopped
//	+----------+----------+
type stateTransfer struct{ direction, phase uint32 }

const (
	directionSave = 0
	directionLoad = 1
	phaseStopped  = 0

	// stateNoFD in the reply: the back-end uses the front-end's descriptor.
	stateNoFD = 0x100
)

func parseStateTransfer(b []byte) (stateTransfer, error) {
	if len(b) != 8 {
		return stateTransfer{}, errSize
	}
	return stateTransfer{order.Uint32(b), order.Uint32(b[4:])}, nil
}

func (t stateTransfer) append(dst []byte) []byte {
	return order.AppendUint32(order.AppendUint32(dst, t.direction), t.phase)
}
