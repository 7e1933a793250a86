// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"encoding/binary"
	"errors"
)

// The protocol uses the machine's native byte order ("Message Specification").
// Front-end and back-end share one machine, so NativeEndian is exact.
var order = binary.NativeEndian

var errSize = errors.New("wrong size")

// header opens each message in both directions ("Header").
//
//	 0        4        8        12
//	+--------+--------+--------+
//	| request| flags  | size   |   size: bytes of the payload that follows
//	+--------+--------+--------+
//	flags: bits 0-1 version (1), bit 2 reply, bit 3 need_reply
type header struct {
	request Request
	flags   uint32
	size    uint32
}

const headerSize = 12

func parseHeader(b []byte) (header, error) {
	if len(b) != headerSize {
		return header{}, errSize
	}
	return header{Request(order.Uint32(b)), order.Uint32(b[4:]), order.Uint32(b[8:])}, nil
}

func (h header) append(dst []byte) []byte {
	dst = order.AppendUint32(dst, uint32(h.request))
	dst = order.AppendUint32(dst, h.flags)
	return order.AppendUint32(dst, h.size)
}

// parseU64 reads the "single 64-bit integer" payload.
func parseU64(b []byte) (uint64, error) {
	if len(b) != 8 {
		return 0, errSize
	}
	return order.Uint64(b), nil
}

func appendU64(dst []byte, v uint64) []byte { return order.AppendUint64(dst, v) }

// vringState is "a vring state description".
//
//	 0        4        8
//	+--------+--------+
//	| index  | num    |
//	+--------+--------+
type vringState struct{ index, num uint32 }

func parseVringState(b []byte) (vringState, error) {
	if len(b) != 8 {
		return vringState{}, errSize
	}
	return vringState{order.Uint32(b), order.Uint32(b[4:])}, nil
}

func (v vringState) append(dst []byte) []byte {
	return order.AppendUint32(order.AppendUint32(dst, v.index), v.num)
}

// vringAddr is "a vring address description". The three addresses are user
// addresses of the front-end; log is a guest physical address.
//
//	 0      4      8            16           24           32           40
//	+------+------+------------+------------+------------+------------+
//	|index |flags | descriptor | used       | available  | log        |
//	+------+------+------------+------------+------------+------------+
//	packed ring:    ring         device       driver event suppression
type vringAddr struct {
	index, flags           uint32
	desc, used, avail, log uint64
}

const vringAddrSize = 40

func parseVringAddr(b []byte) (vringAddr, error) {
	if len(b) != vringAddrSize {
		return vringAddr{}, errSize
	}
	return vringAddr{
		index: order.Uint32(b), flags: order.Uint32(b[4:]),
		desc: order.Uint64(b[8:]), used: order.Uint64(b[16:]),
		avail: order.Uint64(b[24:]), log: order.Uint64(b[32:]),
	}, nil
}

func (v vringAddr) append(dst []byte) []byte {
	dst = order.AppendUint32(order.AppendUint32(dst, v.index), v.flags)
	for _, a := range [...]uint64{v.desc, v.used, v.avail, v.log} {
		dst = order.AppendUint64(dst, a)
	}
	return dst
}

// memRegion is one region of "memory regions description".
//
//	 0               8               16              24              32
//	+---------------+---------------+---------------+---------------+
//	| guest address | size          | user address  | mmap offset   |
//	+---------------+---------------+---------------+---------------+
type memRegion struct{ gpa, size, user, offset uint64 }

const memRegionSize = 32

func parseMemRegion(b []byte) (memRegion, error) {
	if len(b) != memRegionSize {
		return memRegion{}, errSize
	}
	return memRegion{order.Uint64(b), order.Uint64(b[8:]), order.Uint64(b[16:]), order.Uint64(b[24:])}, nil
}

func (r memRegion) append(dst []byte) []byte {
	for _, v := range [...]uint64{r.gpa, r.size, r.user, r.offset} {
		dst = order.AppendUint64(dst, v)
	}
	return dst
}

// parseMemTable reads "memory regions description": le32 count, le32 padding,
// then count regions. The array may be sent at its full size of eight; regions
// behind count are ignored.
func parseMemTable(b []byte) ([]memRegion, error) {
	if len(b) < 8 || (len(b)-8)%memRegionSize != 0 {
		return nil, errSize
	}
	n := order.Uint32(b)
	if n > maxTableRegions || int(n) > (len(b)-8)/memRegionSize {
		return nil, errSize
	}
	regions := make([]memRegion, n)
	for i := range regions {
		off := 8 + i*memRegionSize
		r, err := parseMemRegion(b[off : off+memRegionSize])
		if err != nil {
			return nil, err
		}
		regions[i] = r
	}
	return regions, nil
}

func appendMemTable(dst []byte, regions []memRegion) []byte {
	dst = order.AppendUint32(order.AppendUint32(dst, uint32(len(regions))), 0)
	for _, r := range regions {
		dst = r.append(dst)
	}
	return dst
}

// parseSingleRegion reads "single memory region description": 8 bytes of
// padding, then one region.
func parseSingleRegion(b []byte) (memRegion, error) {
	if len(b) != 8+memRegionSize {
		return memRegion{}, errSize
	}
	return parseMemRegion(b[8:])
}

func appendSingleRegion(dst []byte, r memRegion) []byte {
	return r.append(order.AppendUint64(dst, 0))
}
