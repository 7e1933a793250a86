// SPDX-License-Identifier: Apache-2.0

package virtqueue_test

import (
	"testing"

	"hwvtpm/virtqueue"
	"hwvtpm/virtqueue/queuetest"
)

// serve makes the device use n one-descriptor chains, and the driver take them
// back.
func serve(t *testing.T, d *queuetest.Driver, q *virtqueue.Queue, n int) {
	t.Helper()
	var c virtqueue.Chain
	for range n {
		tok := add(t, d, [][]byte{{1}}, nil, false)
		pop(t, q, &c)
		push(t, q, &c, 0)
		wantPoll(t, d, tok, nil)
	}
}

// "If the idx field in the used ring (which determined where that descriptor
// index was placed) was equal to used_event, the device MUST send a
// notification. Otherwise the device SHOULD NOT" (2.7.7.2): the truth table of
// used_event around n new entries, across the wrap of the index.
func TestSplitUsedEventTruthTable(t *testing.T) {
	for _, base := range []uint16{0, 100, 0xfff8, 0xfffe} {
		for n := range uint16(9) {
			for event := base - 12; event != base+12; event++ {
				d, q := pair(t, queuetest.Options{Size: 8, EventIdx: true, Base: uint32(base - 1)})
				serve(t, d, q, 1)
				q.NeedCall() // the first answer after New is always yes
				d.SetUsedEvent(event)
				serve(t, d, q, int(n))
				if got, want := q.NeedCall(), event-base < n; got != want {
					t.Fatalf("used index %d to %d, used_event %d: NeedCall = %v, want %v", base, base+n, event, got, want)
				}
				if q.NeedCall() {
					t.Fatal("second NeedCall for the same entries is true")
				}
			}
		}
	}
}

// 2.8.10: an event for one descriptor triggers only when the descriptor at that
// offset, in the lap with that wrap counter, is used. All events against all
// starts, on a ring whose size is no power of two.
func TestPackedEventTruthTable(t *testing.T) {
	const size = 5
	for start := range 2 * size {
		for n := range size + 1 {
			for at := range 2 * size {
				d, q := pair(t, queuetest.Options{Size: size, Packed: true, EventIdx: true})
				serve(t, d, q, 2*size+start)
				q.NeedCall()
				d.SetDriverEvent(encodeSpot(at, size), queuetest.EventDesc)
				serve(t, d, q, n)
				hit := (at-start+2*size)%(2*size) < n
				if got := q.NeedCall(); got != hit {
					t.Fatalf("position %d plus %d, event at %d: NeedCall = %v, want %v", start, n, at, got, hit)
				}
			}
		}
	}
}

// encodeSpot encodes the slot that is at descriptors after the start of an even
// lap; a ring starts with wrap counter 1.
func encodeSpot(at, size int) uint16 {
	if at < size {
		return uint16(at) | 1<<15
	}
	return uint16(at - size)
}

// One used descriptor stands for all slots of its list: an event on any of them
// is passed (2.8.6).
func TestPackedEventInsideList(t *testing.T) {
	for at := range 5 {
		d, q := pair(t, queuetest.Options{Size: 8, Packed: true, EventIdx: true})
		serve(t, d, q, 1)
		q.NeedCall()
		d.SetDriverEvent(encodeSpot(at, 8), queuetest.EventDesc)
		add(t, d, [][]byte{{1}, {2}}, []int{3}, false) // slots 1, 2, 3
		var c virtqueue.Chain
		pop(t, q, &c)
		push(t, q, &c, 0)
		if got, want := q.NeedCall(), at >= 1 && at <= 3; got != want {
			t.Errorf("event at slot %d: NeedCall = %v, want %v", at, got, want)
		}
	}
}

func TestCallFlags(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    queuetest.Options
		set  func(d *queuetest.Driver)
		want bool
	}{
		{"split, flags 0: MUST send (2.7.7.2)", queuetest.Options{},
			func(d *queuetest.Driver) { d.SetAvailFlags(0) }, true},
		{"split, flags 1: SHOULD NOT send (2.7.7.2)", queuetest.Options{},
			func(d *queuetest.Driver) { d.SetAvailFlags(queuetest.AvailNoInterrupt) }, false},
		{"split, MUST ignore used_event", queuetest.Options{},
			func(d *queuetest.Driver) { d.SetUsedEvent(9999) }, true},
		{"split with EVENT_IDX MUST ignore the lower bit of flags", queuetest.Options{EventIdx: true},
			func(d *queuetest.Driver) { d.SetAvailFlags(queuetest.AvailNoInterrupt); d.SetUsedEvent(1) }, true},
		{"packed, enable", queuetest.Options{Packed: true},
			func(d *queuetest.Driver) { d.SetDriverEvent(0, queuetest.EventEnable) }, true},
		{"packed, disable", queuetest.Options{Packed: true},
			func(d *queuetest.Driver) { d.SetDriverEvent(0, queuetest.EventDisable) }, false},
		{"packed, desc without EVENT_IDX is not valid", queuetest.Options{Packed: true},
			func(d *queuetest.Driver) { d.SetDriverEvent(7, queuetest.EventDesc) }, true},
		{"packed, reserved value", queuetest.Options{Packed: true, EventIdx: true},
			func(d *queuetest.Driver) { d.SetDriverEvent(0, 3) }, true},
		{"packed, reserved bits are not looked at", queuetest.Options{Packed: true, EventIdx: true},
			func(d *queuetest.Driver) { d.SetDriverEvent(0, 0xfffc|queuetest.EventDisable) }, false},
		{"packed, event beyond the ring", queuetest.Options{Packed: true, EventIdx: true},
			func(d *queuetest.Driver) { d.SetDriverEvent(0x7fff, queuetest.EventDesc) }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, q := pair(t, tt.o)
			serve(t, d, q, 1)
			q.NeedCall()
			tt.set(d)
			if q.NeedCall() {
				t.Error("NeedCall is true with nothing pushed")
			}
			serve(t, d, q, 1)
			if got := q.NeedCall(); got != tt.want {
				t.Errorf("NeedCall = %v, want %v", got, tt.want)
			}
		})
	}
}

// A predecessor may have pushed and died before it called: with EVENT_IDX the
// first push of a new queue calls whatever the event says.
func TestFirstCallAfterRestart(t *testing.T) {
	for _, packed := range []bool{false, true} {
		d, q := pair(t, queuetest.Options{Packed: packed, EventIdx: true})
		d.EnableCall()
		serve(t, d, q, 1) // used index passes the event; NeedCall is never asked
		cfg := d.Config()
		cfg.Base = q.Base()
		q = open(t, d, cfg)
		if q.NeedCall() {
			t.Errorf("packed %v: NeedCall before any push is true", packed)
		}
		serve(t, d, q, 1)
		if !q.NeedCall() {
			t.Errorf("packed %v: NeedCall = false, the driver would sleep for ever", packed)
		}
	}
}

// More pushes than an index can count, none of them reported yet.
func TestNeedCallAfterManyPushes(t *testing.T) {
	for _, packed := range []bool{false, true} {
		d, q := pair(t, queuetest.Options{Size: 4, Packed: packed, EventIdx: true})
		serve(t, d, q, 1)
		q.NeedCall()
		d.EnableCall()
		serve(t, d, q, 1<<16)
		if !q.NeedCall() {
			t.Errorf("packed %v: NeedCall = false after the index came round", packed)
		}
	}
}

func TestKickSuppression(t *testing.T) {
	forEachFormat(t, 8, func(t *testing.T, o queuetest.Options) {
		d, q := pair(t, nearWrap(o))
		for lap := range 20 {
			if more, err := q.EnableKick(); more || err != nil {
				t.Fatalf("lap %d: EnableKick = %v, %v, want an empty queue", lap, more, err)
			}
			add(t, d, [][]byte{{1}}, nil, false)
			if !d.NeedKick() {
				t.Fatalf("lap %d: no kick although the device waits", lap)
			}
			q.DisableKick()
			var c, c2 virtqueue.Chain
			pop(t, q, &c)
			add(t, d, [][]byte{{2}}, nil, false)
			if d.NeedKick() {
				t.Fatalf("lap %d: kick although the device is at work", lap)
			}
			if more, err := q.EnableKick(); !more || err != nil {
				t.Fatalf("lap %d: EnableKick = %v, %v, want to be told of the second chain", lap, more, err)
			}
			pop(t, q, &c2)
			push(t, q, &c, 0)
			push(t, q, &c2, 0)
			d.Poll()
			d.Poll()
		}
	})
}

// With EVENT_IDX the device MUST set used flags to 0 (2.7.10.2).
func TestSplitEventIdxKeepsFlagsZero(t *testing.T) {
	d, q := pair(t, queuetest.Options{EventIdx: true})
	q.DisableKick()
	serve(t, d, q, 2)
	q.DisableKick()
	if flags := d.UsedFlags(); flags != 0 {
		t.Errorf("used flags %#x, want 0", flags)
	}
}

// A predecessor's "no notifications" is taken back by the first EnableKick.
func TestEnableKickAfterRestart(t *testing.T) {
	for _, packed := range []bool{false, true} {
		d, q := pair(t, queuetest.Options{Packed: packed})
		q.DisableKick()
		q = open(t, d, d.Config())
		if more, err := q.EnableKick(); more || err != nil {
			t.Fatalf("EnableKick = %v, %v", more, err)
		}
		add(t, d, [][]byte{{1}}, nil, false)
		if !d.NeedKick() {
			t.Errorf("packed %v: the driver still believes kicks are off", packed)
		}
	}
}

// avail_event may share its 32-bit word with bytes that are not the device's:
// they stay.
func TestAvailEventLeavesNeighbourAlone(t *testing.T) {
	d, q := pair(t, queuetest.Options{Size: 8, EventIdx: true})
	behind := d.Layout().Device + 4 + 8*8 + 2
	copy(d.Bytes()[behind:], []byte{0xab, 0xcd})
	serve(t, d, q, 3)
	if _, err := q.EnableKick(); err != nil {
		t.Fatal(err)
	}
	if got := d.AvailEvent(); got != 3 {
		t.Errorf("avail_event %d, want 3", got)
	}
	if got := d.Bytes()[behind : behind+2]; got[0] != 0xab || got[1] != 0xcd {
		t.Errorf("bytes behind the used ring became %x", got)
	}
}
