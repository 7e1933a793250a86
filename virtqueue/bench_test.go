// SPDX-License-Identifier: Apache-2.0

package virtqueue_test

import (
	"testing"

	"hwvtpm/virtqueue"
	"hwvtpm/virtqueue/queuetest"
)

// cycle serves the same request again and again. The chain is offered without
// the driver's bookkeeping, which allocates.
type cycle struct {
	d         *queuetest.Driver
	q         *virtqueue.Queue
	c         virtqueue.Chain
	descs     []queuetest.Desc
	req, resp []byte
}

func newCycle(t testing.TB, o queuetest.Options) *cycle {
	d := queuetest.NewDriver(o)
	cfg := d.Config()
	cfg.Log, cfg.LogUsed, cfg.LogUsedAddr = virtqueue.NewDirtyLog(make([]byte, 1<<20)), true, d.GPA(d.Layout().Device)
	y := &cycle{d: d, q: open(t, d, cfg), req: make([]byte, 64), resp: pattern(1, 512)}
	in, out := d.GPA(d.Alloc(64)), d.GPA(d.Alloc(512))
	y.descs = []queuetest.Desc{de(in, 64, fNext, 1), de(out, 512, fWrite, 0)}
	if o.Indirect {
		y.descs = []queuetest.Desc{de(d.PutTable(y.descs...), 32, fIndirect, 0)}
	}
	return y
}

// run serves one request as a device does; it must not allocate.
func (y *cycle) run(t testing.TB) {
	y.d.Offer(y.descs...)
	y.q.DisableKick()
	ok, err := y.q.Pop(&y.c)
	if !ok || err != nil {
		t.Fatalf("Pop = %v, %v", ok, err)
	}
	if _, err := y.c.ReadAt(y.d.Memory(), y.req, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := y.c.WriteAt(y.q, y.resp, 0); err != nil {
		t.Fatal(err)
	}
	if err := y.q.Push(&y.c, uint32(len(y.resp))); err != nil {
		t.Fatal(err)
	}
	y.q.NeedCall()
	if _, err := y.q.EnableKick(); err != nil {
		t.Fatal(err)
	}
}

func TestNoAllocationPerRequest(t *testing.T) {
	forEachFormat(t, 4, func(t *testing.T, o queuetest.Options) {
		y := newCycle(t, o)
		y.run(t) // the chain grows to its length
		if n := testing.AllocsPerRun(500, func() { y.run(t) }); n != 0 {
			t.Errorf("%v allocations per request, want 0", n)
		}
	})
}

// BenchmarkPopPush is a whole request: Pop, 64 bytes in, 512 bytes out with
// dirty logging, Push, both notification decisions.
func BenchmarkPopPush(b *testing.B) {
	for _, o := range formats() {
		b.Run(name(o), func(b *testing.B) {
			o.Size = 64
			y := newCycle(b, o)
			b.ReportAllocs()
			for b.Loop() {
				y.run(b)
			}
		})
	}
}
