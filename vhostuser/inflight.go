// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"fmt"
	"slices"
)

// inflightArea is the shared buffer of "Inflight I/O tracking": one region
// per queue, which outlives this process in the front-end's keeping.
type inflightArea struct {
	shared *sharedMap
	desc   inflightDesc
}

func (a *inflightArea) unmap() { a.shared.unmap() }

// Layout of one split queue region (QueueRegionSplit):
//
//	 0          8         10        12                14         16
//	+----------+---------+---------+-----------------+----------+--------...
//	| features | version | desc_num| last_batch_head | used_idx | desc[desc_num]
//	+----------+---------+---------+-----------------+----------+--------...
//
// and of one desc (DescStateSplit):
//
//	 0          1            6        8         16
//	+----------+------------+--------+---------+
//	| inflight | padding    | next   | counter |
//	+----------+------------+--------+---------+
const (
	inflightVersion    = 1
	inflightHeaderSize = 16
	inflightDescState  = 16
	inflightAlign      = 64 // regions start on cache lines
)

func inflightQueueSize(queueSize uint16) uint64 {
	n := inflightHeaderSize + inflightDescState*uint64(queueSize)
	return (n + inflightAlign - 1) &^ (inflightAlign - 1)
}

var (
	errInflightPacked = errors.New("in-flight tracking is not supported for packed rings")
	errInflightArea   = errors.New("in-flight area does not fit the queues")
	errInflightState  = errors.New("in-flight area is inconsistent")
	errInflightOrder  = errors.New("in-flight requests are not the oldest ones of the ring")
)

// inflightQueue tracks the requests of one split ring. All of it lies in
// memory that the front-end can write: every value read is checked. A nil
// queue tracks nothing.
type inflightQueue struct {
	mem     []byte
	size    uint16
	counter uint64
	usedIdx uint16
}

func (q *inflightQueue) desc(i uint16) []byte {
	off := inflightHeaderSize + inflightDescState*int(i)
	return q.mem[off : off+inflightDescState]
}

// begin notes that head was taken off the ring.
func (q *inflightQueue) begin(head uint16) {
	if q == nil || head >= q.size {
		return
	}
	d := q.desc(head)
	order.PutUint64(d[8:], q.counter)
	q.counter++
	d[0] = 1
}

// using notes that head is about to be pushed; the batch is always one.
func (q *inflightQueue) using(head uint16) {
	if q == nil || head >= q.size {
		return
	}
	copy(q.desc(head)[6:8], q.mem[12:14])
	order.PutUint16(q.mem[12:], head)
}

// used notes that head was pushed. A crash before this is repaired by settle.
func (q *inflightQueue) used(head uint16) {
	if q == nil || head >= q.size {
		return
	}
	q.desc(head)[0] = 0
	q.usedIdx++
	order.PutUint16(q.mem[14:], q.usedIdx)
}

// format makes an all-zero region usable.
func (q *inflightQueue) format() {
	order.PutUint16(q.mem[10:], q.size)
	order.PutUint16(q.mem[14:], q.usedIdx)
	order.PutUint16(q.mem[8:], inflightVersion)
}

// settle ends the batch that a crash may have cut short: what the used ring
// holds already is not in flight ("When reconnecting", step 1).
func (q *inflightQueue) settle() error {
	batch := q.usedIdx - order.Uint16(q.mem[14:])
	if batch > q.size {
		return fmt.Errorf("%w: used index %d", errInflightState, order.Uint16(q.mem[14:]))
	}
	head := order.Uint16(q.mem[12:])
	for ; batch > 0; batch-- {
		if head >= q.size {
			return fmt.Errorf("%w: head %d in last batch", errInflightState, head)
		}
		d := q.desc(head)
		d[0], head = 0, order.Uint16(d[6:])
	}
	order.PutUint16(q.mem[14:], q.usedIdx)
	return nil
}

// heads returns the requests in flight in the order they were fetched, and
// continues the counter behind them.
func (q *inflightQueue) heads() []uint16 {
	var heads []uint16
	for i := range q.size {
		if d := q.desc(i); d[0] == 1 {
			heads = append(heads, i)
			q.counter = max(q.counter, order.Uint64(d[8:])+1)
		}
	}
	slices.SortFunc(heads, func(a, b uint16) int {
		x, y := order.Uint64(q.desc(a)[8:]), order.Uint64(q.desc(b)[8:])
		return int(min(max(int64(x-y), -1), 1))
	})
	return heads
}
