// SPDX-License-Identifier: Apache-2.0

package virtqueue_test

import (
	"errors"
	"testing"

	"hwvtpm/virtqueue"
	"hwvtpm/virtqueue/queuetest"
)

// opsTarget is a queue and a driver that is honest and hostile by turns, under
// a sequence of operations from the fuzzer.
type opsTarget struct {
	t    *testing.T
	g    *guarded
	d    *queuetest.Driver
	q    *virtqueue.Queue
	held []*virtqueue.Chain
	buf  [512]byte
}

func newOpsTarget(t *testing.T, in *input) *opsTarget {
	shape := in.byte()
	o := queuetest.Options{Size: 1 << (shape & 3), Packed: shape&4 != 0, Indirect: shape&8 != 0, EventIdx: shape&16 != 0}
	if shape&32 != 0 {
		o = nearWrap(o)
	}
	g := newGuarded(queuetest.MinMemory(o)&^15, 16)
	o.Mem, o.GPA, o.UserAddr = g.lo, 0x4000, 0x7f0000000000
	if len(o.Mem) < queuetest.MinMemory(o) {
		t.Fatal("layout is not a multiple of 16")
	}
	x := &opsTarget{t: t, g: g, d: queuetest.NewDriver(o)}
	x.reopen(x.d.Config().Base)
	return x
}

// reopen replaces the queue; a base that the ring does not bear leaves the old
// one, closed.
func (x *opsTarget) reopen(base uint32) {
	if x.q != nil {
		x.q.Close()
		x.held = nil
	}
	cfg := x.d.Config()
	cfg.Base = base
	cfg.Log, cfg.LogUsed, cfg.LogUsedAddr = virtqueue.NewDirtyLog(make([]byte, 4)), true, x.d.GPA(x.d.Layout().Device)
	if q, err := virtqueue.New(x.d.Memory(), cfg); err == nil {
		x.q = q
	} else if x.q == nil {
		x.t.Fatalf("New on a fresh ring = %v", err)
	}
}

func (x *opsTarget) pop() {
	if len(x.held) > 16 {
		x.t.Fatalf("%d chains in flight in a ring of at most 8", len(x.held))
	}
	c := new(virtqueue.Chain)
	ok, err := x.q.Pop(c)
	ring := new(virtqueue.RingError)
	if err != nil && !errors.As(err, &ring) && !errors.Is(err, virtqueue.ErrClosed) {
		x.t.Fatalf("Pop = %v, want a RingError or ErrClosed", err)
	}
	if ok {
		x.held = append(x.held, c)
	}
}

func (x *opsTarget) use(in *input) {
	if len(x.held) == 0 {
		return
	}
	i := int(in.byte()) % len(x.held)
	c := x.held[i]
	if _, err := c.ReadAt(x.d.Memory(), x.buf[:in.byte()], uint32(in.u16())); err != nil {
		x.t.Fatalf("ReadAt = %v in memory that never changed", err)
	}
	written, _ := c.WriteAt(x.q, x.buf[:min(uint32(in.byte()), c.Writable())], 0)
	if err := x.q.Push(c, uint32(written)); err != nil {
		x.t.Fatalf("Push = %v", err)
	}
	x.held = append(x.held[:i], x.held[i+1:]...)
}

func (x *opsTarget) honest(in *input) {
	readable, writable := make([][]byte, in.byte()%3), make([]int, in.byte()%3)
	for i := range readable {
		readable[i] = x.buf[:in.byte()]
	}
	for i := range writable {
		writable[i] = int(in.byte())
	}
	_, _ = x.d.Add(readable, writable, in.byte()&1 != 0) // a full ring is as good
}

// hostileSplit and hostilePacked do what only their format has.
func (x *opsTarget) hostileSplit(in *input) {
	switch in.byte() % 4 {
	case 0:
		x.d.SetAvailIdx(x.d.AvailIdx() + in.u16())
	case 1:
		x.d.SetAvail(in.u16(), in.u16())
	case 2:
		x.d.SetUsed(in.u16(), in.u16())
	case 3:
		x.d.SetUsedEvent(in.u16())
	}
}

func (x *opsTarget) hostilePacked(in *input) { x.d.SetDriverEvent(in.u16(), in.u16()) }

func (x *opsTarget) step(op byte, in *input) {
	switch op % 14 {
	case 0, 1:
		x.honest(in)
	case 2, 3:
		x.pop()
	case 4, 5:
		x.use(in)
	case 6:
		x.d.Poll()
	case 7:
		_, _ = x.q.EnableKick()
	case 8:
		x.q.DisableKick()
	case 9:
		x.q.NeedCall()
	case 10:
		x.reopen(x.q.Base())
	case 11:
		x.d.SetDesc(int(in.byte())%int(x.d.Config().Size), in.desc(x.d))
	case 12:
		x.d.Offer(in.desc(x.d))
	case 13:
		if x.d.Config().Features>>virtqueue.FeatureRingPacked&1 != 0 {
			x.hostilePacked(in)
		} else {
			x.hostileSplit(in)
		}
	}
}

// Sequences of honest and hostile operations: no panic, no byte outside guest
// memory, no more than Queue Size chains in flight, and every call returns.
func FuzzQueueOps(f *testing.F) {
	for shape := range byte(64) {
		f.Add([]byte{shape, 0, 1, 1, 5, 9, 0, 2, 4, 0, 9, 0, 0, 9, 7, 9, 6, 12, 0, 1, 4, 2, 1, 0, 0, 2, 10, 13, 0, 3, 0, 2})
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		in := input(data)
		x := newOpsTarget(t, &in)
		for len(in) > 0 {
			x.step(in.byte(), &in)
			if len(x.held) > int(x.d.Config().Size) {
				t.Fatalf("%d chains in flight in a ring of %d", len(x.held), x.d.Config().Size)
			}
		}
		x.g.check(t)
	})
}
