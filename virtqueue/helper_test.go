// SPDX-License-Identifier: Apache-2.0

package virtqueue_test

import (
	"bytes"
	"testing"

	"hwvtpm/virtqueue"
	"hwvtpm/virtqueue/queuetest"
)

// formats are the ring variants that every general test runs over.
func formats() []queuetest.Options {
	var all []queuetest.Options
	for _, packed := range []bool{false, true} {
		for _, indirect := range []bool{false, true} {
			for _, event := range []bool{false, true} {
				all = append(all, queuetest.Options{Packed: packed, Indirect: indirect, EventIdx: event})
			}
		}
	}
	return all
}

func name(o queuetest.Options) string {
	s := "split"
	if o.Packed {
		s = "packed"
	}
	if o.Indirect {
		s += ",indirect"
	}
	if o.EventIdx {
		s += ",event_idx"
	}
	return s
}

// forEachFormat runs f over all ring variants of the given size.
func forEachFormat(t *testing.T, size uint16, f func(t *testing.T, o queuetest.Options)) {
	t.Helper()
	for _, o := range formats() {
		o.Size = size
		t.Run(name(o), func(t *testing.T) { f(t, o) })
	}
}

// pair returns a driver and a queue on its ring.
func pair(t testing.TB, o queuetest.Options) (*queuetest.Driver, *virtqueue.Queue) {
	t.Helper()
	d := queuetest.NewDriver(o)
	return d, open(t, d, d.Config())
}

func open(t testing.TB, d *queuetest.Driver, cfg virtqueue.Config) *virtqueue.Queue {
	t.Helper()
	q, err := virtqueue.New(d.Memory(), cfg)
	if err != nil {
		t.Fatalf("New(%+v) = %v", cfg, err)
	}
	return q
}

func add(t testing.TB, d *queuetest.Driver, readable [][]byte, writable []int, indirect bool) queuetest.Token {
	t.Helper()
	tok, err := d.Add(readable, writable, indirect)
	if err != nil {
		t.Fatalf("Add = %v", err)
	}
	return tok
}

func pop(t testing.TB, q *virtqueue.Queue, c *virtqueue.Chain) {
	t.Helper()
	if ok, err := q.Pop(c); err != nil || !ok {
		t.Fatalf("Pop = %v, %v, want a chain", ok, err)
	}
}

func popNothing(t testing.TB, q *virtqueue.Queue) {
	t.Helper()
	if ok, err := q.Pop(new(virtqueue.Chain)); err != nil || ok {
		t.Fatalf("Pop = %v, %v, want an empty queue", ok, err)
	}
}

func push(t testing.TB, q *virtqueue.Queue, c *virtqueue.Chain, written uint32) {
	t.Helper()
	if err := q.Push(c, written); err != nil {
		t.Fatalf("Push = %v", err)
	}
}

// readAll returns the whole device-readable part.
func readAll(t testing.TB, d *queuetest.Driver, c *virtqueue.Chain) []byte {
	t.Helper()
	b := make([]byte, c.Readable())
	if n, err := c.ReadAt(d.Memory(), b, 0); n != len(b) || err != nil {
		t.Fatalf("ReadAt = %d, %v, want %d bytes", n, err, len(b))
	}
	return b
}

func write(t testing.TB, q *virtqueue.Queue, c *virtqueue.Chain, b []byte) {
	t.Helper()
	if n, err := c.WriteAt(q, b, 0); n != len(b) || err != nil {
		t.Fatalf("WriteAt = %d, %v, want %d bytes", n, err, len(b))
	}
}

// wantPoll takes one chain back and compares it.
func wantPoll(t testing.TB, d *queuetest.Driver, tok queuetest.Token, in []byte) {
	t.Helper()
	got, written, data, ok := d.Poll()
	if !ok || d.Err() != nil {
		t.Fatalf("Poll = nothing (%v), want token %d", d.Err(), tok)
	}
	if got != tok || int(written) != len(in) || !bytes.Equal(data, in) {
		t.Fatalf("Poll = token %d, %d bytes %.32q, want token %d, %d bytes %.32q", got, written, data, tok, len(in), in)
	}
}

// pattern returns n bytes that depend on seed and position.
func pattern(seed, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(seed*31 + i*7 + i>>8 + 1)
	}
	return b
}

// nearWrap returns options for a ring whose 16-bit index (split) or slot and wrap
// counter (packed) is about to wrap around.
func nearWrap(o queuetest.Options) queuetest.Options {
	if !o.Packed {
		o.Base = 0xfffe
		return o
	}
	at := uint32(o.Size-1) | 1<<15
	o.Base = at | at<<16
	return o
}
