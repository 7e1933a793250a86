// SPDX-License-Identifier: Apache-2.0

package virtqueue_test

import (
	"bytes"
	"errors"
	"testing"

	"hwvtpm/virtqueue"
	"hwvtpm/virtqueue/queuetest"
)

func TestNewRefuses(t *testing.T) {
	split, packed := queuetest.Options{Size: 8}, queuetest.Options{Size: 8, Packed: true}
	for _, tt := range []struct {
		name   string
		o      queuetest.Options
		change func(cfg *virtqueue.Config)
		want   error
	}{
		{"legacy driver", split, func(c *virtqueue.Config) { c.Features = 0 }, virtqueue.ErrConfig},
		{"size 0", split, func(c *virtqueue.Config) { c.Size = 0 }, virtqueue.ErrConfig},
		{"split size no power of two (2.7)", split, func(c *virtqueue.Config) { c.Size = 6 }, virtqueue.ErrConfig},
		{"packed size above 2^15 (2.8)", packed, func(c *virtqueue.Config) { c.Size = 32769 }, virtqueue.ErrConfig},
		{"table misaligned (2.7)", split, func(c *virtqueue.Config) { c.Desc += 8 }, virtqueue.ErrConfig},
		{"available ring misaligned (2.7)", split, func(c *virtqueue.Config) { c.Driver++ }, virtqueue.ErrConfig},
		{"used ring misaligned (2.7)", split, func(c *virtqueue.Config) { c.Device += 2 }, virtqueue.ErrConfig},
		{"ring misaligned (2.8.10.1)", packed, func(c *virtqueue.Config) { c.Desc += 8 }, virtqueue.ErrConfig},
		{"driver event misaligned (2.8.10.1)", packed, func(c *virtqueue.Config) { c.Driver += 2 }, virtqueue.ErrConfig},
		{"device event misaligned (2.8.10.1)", packed, func(c *virtqueue.Config) { c.Device += 2 }, virtqueue.ErrConfig},
		{"a guest address for the table", split, func(c *virtqueue.Config) { c.Desc = queuetest.DefaultGPA }, virtqueue.ErrNoRegion},
		{"address wraps", split, func(c *virtqueue.Config) { c.Desc = ^uint64(15) }, virtqueue.ErrConfig},
		{"table past the end", split, func(c *virtqueue.Config) { c.Size = 32768 }, virtqueue.ErrCrossRegion},
		{"base more than the queue ahead of used", split, func(c *virtqueue.Config) { c.Base = 9 }, virtqueue.ErrIndex},
		{"base behind used", split, func(c *virtqueue.Config) { c.Base = 0xffff }, virtqueue.ErrIndex},
		{"available slot beyond the ring", packed, func(c *virtqueue.Config) { c.Base = 0x80008008 }, virtqueue.ErrIndex},
		{"used slot beyond the ring", packed, func(c *virtqueue.Config) { c.Base = 0x80088000 }, virtqueue.ErrIndex},
		{"more slots in flight than there are", packed, func(c *virtqueue.Config) { c.Base = 0x80000001 }, virtqueue.ErrIndex},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := queuetest.NewDriver(tt.o)
			cfg := d.Config()
			tt.change(&cfg)
			if _, err := virtqueue.New(d.Memory(), cfg); !errors.Is(err, tt.want) {
				t.Errorf("New = %v, want %v", err, tt.want)
			}
		})
	}
}

// Ring words need an alignment in this process too, whatever the addresses say.
func TestNewRefusesMisalignedMapping(t *testing.T) {
	for _, packed := range []bool{false, true} {
		d := queuetest.NewDriver(queuetest.Options{Packed: packed})
		odd := make([]byte, len(d.Bytes())+1)[1:]
		mem, err := virtqueue.NewMemory([]virtqueue.Region{{GPA: d.GPA(0), UserAddr: d.User(0), Mem: odd}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := virtqueue.New(mem, d.Config()); !errors.Is(err, virtqueue.ErrConfig) {
			t.Errorf("packed %v: New = %v, want ErrConfig", packed, err)
		}
	}
}

// New reads positions only: a session that is set up and torn down leaves no
// trace in the guest.
func TestNewWritesNothing(t *testing.T) {
	forEachFormat(t, 8, func(t *testing.T, o queuetest.Options) {
		d := queuetest.NewDriver(nearWrap(o))
		before := bytes.Clone(d.Bytes())
		open(t, d, d.Config()).Close()
		if !bytes.Equal(before, d.Bytes()) {
			t.Error("guest memory changed")
		}
	})
}

// The available ring needs an alignment of 2 only (2.7), so its index may be in
// either half of a 32-bit word.
func TestAvailRingAtOddHalfword(t *testing.T) {
	d := queuetest.NewDriver(queuetest.Options{Size: 4})
	off := d.Alloc(64) + 2
	cfg := d.Config()
	cfg.Driver = d.User(off)
	q := open(t, d, cfg)
	add(t, d, [][]byte{[]byte("hello")}, nil, false)
	popNothing(t, q)
	copy(d.Bytes()[off:off+14], d.Bytes()[d.Layout().Driver:])
	var c virtqueue.Chain
	pop(t, q, &c)
	if got := readAll(t, d, &c); string(got) != "hello" {
		t.Errorf("read %q, want hello", got)
	}
	push(t, q, &c, 0)
	if !q.NeedCall() {
		t.Error("NeedCall = false with flags 0")
	}
	d.Bytes()[off] = queuetest.AvailNoInterrupt
	push2 := func() {
		d.Bytes()[off+2]++
		pop(t, q, &c)
		push(t, q, &c, 0)
	}
	if push2(); q.NeedCall() {
		t.Error("NeedCall = true with flags 1")
	}
}

func TestBaseEncoding(t *testing.T) {
	var chains [3]virtqueue.Chain
	d, q := pair(t, queuetest.Options{Size: 4, Base: 0xffff})
	for i := range chains {
		add(t, d, nil, []int{1}, false)
		pop(t, q, &chains[i])
	}
	if got := q.Base(); got != 2 {
		t.Errorf("split: Base = %#x, want 2", got)
	}
	chains = [3]virtqueue.Chain{}
	d, q = pair(t, queuetest.Options{Size: 4, Packed: true, Base: 0x80038003})
	for i := range chains {
		add(t, d, nil, []int{1}, false)
		pop(t, q, &chains[i])
	}
	if got := q.Base(); got != 0x80030002 {
		t.Errorf("packed: Base = %#x, want 0x80030002: available slot 2 in the next lap, used still 3", got)
	}
	push(t, q, &chains[1], 0)
	q.Close()
	if got := q.Base(); got != 0x00000002 {
		t.Errorf("packed, closed: Base = %#x, want 2", got)
	}
}

func TestSetMemoryMovesTheMapping(t *testing.T) {
	forEachFormat(t, 8, func(t *testing.T, o queuetest.Options) {
		d, q := pair(t, o)
		add(t, d, [][]byte{[]byte("before")}, []int{8}, o.Indirect)
		var c virtqueue.Chain
		pop(t, q, &c)

		moved := bytes.Clone(d.Bytes()) // the same guest memory, mapped elsewhere
		copy(moved[bytes.Index(moved, []byte("before")):], "after!")
		mem, err := virtqueue.NewMemory([]virtqueue.Region{{GPA: d.GPA(0), UserAddr: d.User(0), Mem: moved}})
		if err != nil {
			t.Fatal(err)
		}
		if err := q.SetMemory(mem); err != nil {
			t.Fatal(err)
		}
		old := bytes.Clone(d.Bytes())
		got := make([]byte, 6)
		if _, err := c.ReadAt(mem, got, 0); err != nil || string(got) != "after!" {
			t.Errorf("read %q, %v, want after!", got, err)
		}
		write(t, q, &c, []byte("reply"))
		push(t, q, &c, 5)
		if !bytes.Equal(old, d.Bytes()) {
			t.Error("the old mapping was written")
		}
		copy(d.Bytes(), moved)
		if _, written, in, ok := d.Poll(); !ok || written != 5 || string(in) != "reply" {
			t.Errorf("Poll = %q, %d, %v, want reply", in, written, ok)
		}
	})
}

// Buffers are translated at each use: after the table lost them, using them is
// an error and not a stale pointer.
func TestBufferLeavesTheMemoryTable(t *testing.T) {
	forEachFormat(t, 8, func(t *testing.T, o queuetest.Options) {
		d, q := pair(t, o)
		keep := d.Alloc(4096) + 4096
		d.Alloc(64) // the buffers of Add are behind keep
		add(t, d, [][]byte{[]byte("request")}, []int{8}, false)
		var c virtqueue.Chain
		pop(t, q, &c)
		mem, err := virtqueue.NewMemory([]virtqueue.Region{{GPA: d.GPA(0), UserAddr: d.User(0), Mem: d.Bytes()[:keep]}})
		if err != nil {
			t.Fatal(err)
		}
		if err := q.SetMemory(mem); err != nil {
			t.Fatal(err)
		}
		if n, err := c.ReadAt(mem, make([]byte, 7), 0); n != 0 || !errors.Is(err, virtqueue.ErrNoRegion) {
			t.Errorf("ReadAt = %d, %v, want ErrNoRegion", n, err)
		}
		if n, err := c.WriteAt(q, make([]byte, 8), 0); n != 0 || !errors.Is(err, virtqueue.ErrNoRegion) {
			t.Errorf("WriteAt = %d, %v, want ErrNoRegion", n, err)
		}
		push(t, q, &c, 0)
	})
}

// A memory table without the ring leaves a queue that touches nothing.
func TestSetMemoryWithoutTheRing(t *testing.T) {
	forEachFormat(t, 8, func(t *testing.T, o queuetest.Options) {
		d, q := pair(t, o)
		add(t, d, nil, []int{8}, false)
		var c virtqueue.Chain
		pop(t, q, &c)
		empty, err := virtqueue.NewMemory(nil)
		if err != nil {
			t.Fatal(err)
		}
		before := bytes.Clone(d.Bytes())
		if err := q.SetMemory(empty); !errors.Is(err, virtqueue.ErrNoRegion) {
			t.Errorf("SetMemory = %v, want ErrNoRegion", err)
		}
		wantClosed(t, q, &c)
		if !bytes.Equal(before, d.Bytes()) {
			t.Error("guest memory changed")
		}
	})
}

func TestClosedQueue(t *testing.T) {
	forEachFormat(t, 8, func(t *testing.T, o queuetest.Options) {
		d, q := pair(t, o)
		add(t, d, nil, []int{8}, false)
		var c virtqueue.Chain
		pop(t, q, &c)
		q.Close()
		q.Close()
		wantClosed(t, q, &c)
		// The chain that died with the queue is free for another queue.
		cfg := d.Config()
		q = open(t, d, cfg)
		pop(t, q, &c)
	})
}

func wantClosed(t *testing.T, q *virtqueue.Queue, c *virtqueue.Chain) {
	t.Helper()
	if _, err := q.Pop(new(virtqueue.Chain)); !errors.Is(err, virtqueue.ErrClosed) {
		t.Errorf("Pop = %v, want ErrClosed", err)
	}
	if err := q.Push(c, 0); !errors.Is(err, virtqueue.ErrClosed) {
		t.Errorf("Push = %v, want ErrClosed", err)
	}
	if _, err := q.EnableKick(); !errors.Is(err, virtqueue.ErrClosed) {
		t.Errorf("EnableKick = %v, want ErrClosed", err)
	}
	if n, err := c.WriteAt(q, []byte{1}, 0); n != 0 || err == nil {
		t.Errorf("WriteAt = %d, %v, want an error", n, err)
	}
	if q.NeedCall() {
		t.Error("NeedCall = true")
	}
	empty, _ := virtqueue.NewMemory(nil)
	if err := q.SetMemory(empty); !errors.Is(err, virtqueue.ErrClosed) {
		t.Errorf("SetMemory = %v, want ErrClosed", err)
	}
	q.DisableKick()
}

func TestMisuse(t *testing.T) {
	forEachFormat(t, 8, func(t *testing.T, o queuetest.Options) {
		d, q := pair(t, o)
		_, other := pair(t, o)
		var c virtqueue.Chain
		if err := q.Push(&c, 0); !errors.Is(err, virtqueue.ErrMisuse) {
			t.Errorf("Push of a zero chain = %v, want ErrMisuse", err)
		}
		tok := add(t, d, nil, []int{8}, false)
		pop(t, q, &c)
		if _, err := q.Pop(&c); !errors.Is(err, virtqueue.ErrMisuse) {
			t.Errorf("Pop into a chain in flight = %v, want ErrMisuse", err)
		}
		if err := other.Push(&c, 0); !errors.Is(err, virtqueue.ErrMisuse) {
			t.Errorf("Push to another queue = %v, want ErrMisuse", err)
		}
		if _, err := c.WriteAt(other, []byte{1}, 0); !errors.Is(err, virtqueue.ErrMisuse) {
			t.Errorf("WriteAt by another queue = %v, want ErrMisuse", err)
		}
		if err := q.Push(&c, 9); !errors.Is(err, virtqueue.ErrMisuse) {
			t.Errorf("Push of 9 bytes in 8 = %v, want ErrMisuse", err)
		}
		push(t, q, &c, 8)
		if err := q.Push(&c, 8); !errors.Is(err, virtqueue.ErrMisuse) {
			t.Errorf("second Push = %v, want ErrMisuse", err)
		}
		wantPoll(t, d, tok, make([]byte, 8))
		popNothing(t, q) // none of it broke the ring
	})
}
