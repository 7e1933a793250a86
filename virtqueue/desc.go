// SPDX-License-Identifier: Apache-2.0

package virtqueue

import "encoding/binary"

// Descriptor flags (VIRTIO 1.3 2.7.5 and 2.8.1).
const (
	flagNext     = 1 << 0  // VIRTQ_DESC_F_NEXT
	flagWrite    = 1 << 1  // VIRTQ_DESC_F_WRITE
	flagIndirect = 1 << 2  // VIRTQ_DESC_F_INDIRECT
	flagAvail    = 1 << 7  // VIRTQ_DESC_F_AVAIL, packed rings
	flagUsed     = 1 << 15 // VIRTQ_DESC_F_USED, packed rings
)

// descSize is the size of a descriptor in both ring formats.
const descSize = 16

// desc is the private copy of one descriptor. The guest may rewrite the
// original at any time; it is never looked at again.
//
//	offset   0            8       12           14          16   little-endian
//	split    | addr le64  | len   | flags le16 | next le16 |    2.7.5
//	packed   | addr le64  | len   | id le16    | flags le16|    2.8.13
type desc struct {
	addr  uint64
	len   uint32
	flags uint16
	link  uint16 // split: next; packed: buffer id
}

// splitDesc reads entry i of a split table, once. The caller checked i.
func splitDesc(table []byte, i uint32) desc {
	var b [descSize]byte
	copy(b[:], table[i*descSize:])
	return desc{
		addr:  binary.LittleEndian.Uint64(b[0:]),
		len:   binary.LittleEndian.Uint32(b[8:]),
		flags: binary.LittleEndian.Uint16(b[12:]),
		link:  binary.LittleEndian.Uint16(b[14:]),
	}
}

// packedDesc reads addr and len of a packed descriptor, once; word is the copy
// of its id and flags, which the caller loaded first because it publishes them.
func packedDesc(raw []byte, word uint32) desc {
	var b [packedWord]byte
	copy(b[:], raw)
	return desc{
		addr:  binary.LittleEndian.Uint64(b[0:]),
		len:   binary.LittleEndian.Uint32(b[8:]),
		link:  uint16(word),
		flags: uint16(word >> 16),
	}
}
