// SPDX-License-Identifier: Apache-2.0

package queuetest_test

import (
	"errors"
	"strings"
	"testing"

	"hwvtpm/virtqueue"
	"hwvtpm/virtqueue/queuetest"
)

func TestAddRefuses(t *testing.T) {
	for _, packed := range []bool{false, true} {
		d := queuetest.NewDriver(queuetest.Options{Size: 4, Packed: packed})
		for _, tt := range []struct {
			name     string
			readable [][]byte
			writable []int
			indirect bool
			want     error
		}{
			{"no buffers", nil, nil, false, queuetest.ErrEmpty},
			{"indirect, not negotiated", nil, []int{1}, true, queuetest.ErrFeature},
			{"longer than the queue", nil, []int{1, 1, 1, 1, 1}, false, queuetest.ErrFull},
			{"larger than the heap", nil, []int{1 << 20}, false, queuetest.ErrNoMemory},
		} {
			if _, err := d.Add(tt.readable, tt.writable, tt.indirect); !errors.Is(err, tt.want) {
				t.Errorf("packed %v, %s: Add = %v, want %v", packed, tt.name, err, tt.want)
			}
		}
		for range 4 {
			if _, err := d.Add(nil, []int{15 << 10}, false); err != nil {
				t.Fatalf("Add = %v; a refused one kept memory", err)
			}
		}
		if _, err := d.Add(nil, []int{1}, false); !errors.Is(err, queuetest.ErrFull) {
			t.Errorf("packed %v: fifth Add = %v, want ErrFull", packed, err)
		}
	}
}

// Chains of all sizes, taken back out of order, leave the heap as it was.
func TestHeapIsReusedWhole(t *testing.T) {
	d := queuetest.NewDriver(queuetest.Options{Size: 8, Indirect: true})
	q, err := virtqueue.New(d.Memory(), d.Config())
	if err != nil {
		t.Fatal(err)
	}
	for lap := range 50 {
		var chains [4]virtqueue.Chain
		for i := range chains {
			if _, err := d.Add([][]byte{make([]byte, 100*i+lap)}, []int{3000 - lap, i}, i%2 == 1); err != nil {
				t.Fatal(err)
			}
			if ok, err := q.Pop(&chains[i]); !ok || err != nil {
				t.Fatalf("Pop = %v, %v", ok, err)
			}
		}
		for _, i := range []int{1, 3, 0, 2} {
			if err := q.Push(&chains[i], 0); err != nil {
				t.Fatal(err)
			}
			d.Poll()
		}
	}
	if _, err := d.Add(nil, []int{64 << 10}, false); err != nil {
		t.Errorf("Add of the whole heap = %v, want it to be free again", err)
	}
}

// The driver catches a device that breaks the rules: raw ring writes stand for
// the device here.
func TestErrTellsOfDeviceFaults(t *testing.T) {
	split := queuetest.Options{Size: 4}
	packed := queuetest.Options{Size: 4, Packed: true}
	used := uint16(queuetest.FlagAvail | queuetest.FlagUsed)
	for _, tt := range []struct {
		name string
		o    queuetest.Options
		do   func(d *queuetest.Driver)
		want string
	}{
		{"used index jumps", split, func(d *queuetest.Driver) { d.SetUsed(0, 5) }, "moved by 5"},
		{"unknown head", split, func(d *queuetest.Driver) { putUsed(d, 2, 0); d.SetUsed(0, 1) }, "does not hold"},
		{"head beyond the table", split, func(d *queuetest.Driver) { putUsed(d, 9, 0); d.SetUsed(0, 1) }, "descriptor 9 of 4"},
		{"length above the room", split, func(d *queuetest.Driver) { putUsed(d, 0, 9); d.SetUsed(0, 1) }, "9 bytes"},
		{"unknown id", packed, func(d *queuetest.Driver) { d.SetDesc(0, queuetest.Desc{Flags: used, Link: 3}) }, "does not hold"},
		{"length above the room", packed, func(d *queuetest.Driver) {
			d.SetDesc(0, queuetest.Desc{Flags: used | queuetest.FlagWrite, Len: 9})
		}, "9 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := queuetest.NewDriver(tt.o)
			if _, err := d.Add(nil, []int{8}, false); err != nil { // descriptor 0, id 0
				t.Fatal(err)
			}
			tt.do(d)
			if _, _, _, ok := d.Poll(); ok {
				t.Error("Poll took it")
			}
			if err := d.Err(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Err = %v, want %q in it", err, tt.want)
			}
		})
	}
}

// putUsed writes used ring entry 0.
func putUsed(d *queuetest.Driver, id, written byte) {
	at := d.Layout().Device + 4
	d.Bytes()[at], d.Bytes()[at+4] = id, written
}

// A length without the WRITE flag is reserved, and ignored by drivers (2.8.4).
func TestPackedLengthWithoutWriteFlag(t *testing.T) {
	d := queuetest.NewDriver(queuetest.Options{Size: 4, Packed: true})
	tok, err := d.Add(nil, []int{8}, false)
	if err != nil {
		t.Fatal(err)
	}
	d.SetDesc(0, queuetest.Desc{Flags: queuetest.FlagAvail | queuetest.FlagUsed, Len: 99})
	if got, written, _, ok := d.Poll(); !ok || got != tok || written != 0 {
		t.Errorf("Poll = token %d, %d bytes, %v, want token %d, 0 bytes", got, written, ok, tok)
	}
}

// Driver memory given by the caller is used with the caller's addresses.
func TestGivenMemory(t *testing.T) {
	o := queuetest.Options{Size: 2, GPA: 0x10000, UserAddr: 0x20000}
	o.Mem = make([]byte, queuetest.MinMemory(o))
	d := queuetest.NewDriver(o)
	if cfg := d.Config(); cfg.Desc != 0x20000 || cfg.Size != 2 {
		t.Errorf("Config = %+v", cfg)
	}
	b, err := d.Memory().Guest(0x10000, uint64(len(o.Mem)))
	if err != nil || &b[0] != &o.Mem[0] {
		t.Errorf("Memory does not translate the given address: %v", err)
	}
	if off := d.Alloc(64); d.GPA(off) != 0x10000+uint64(off) || d.User(off) != 0x20000+uint64(off) {
		t.Errorf("GPA %#x, User %#x of offset %#x", d.GPA(off), d.User(off), off)
	}
}

// A ring whose parts lie where somebody else put them works, and nothing beside
// them is touched.
func TestGivenPlace(t *testing.T) {
	for _, packed := range []bool{false, true} {
		o := queuetest.Options{Size: 4, Packed: packed, Mem: make([]byte, 0x5000), Place: &queuetest.Layout{
			Desc: 0x3000, Driver: 0x2000, Device: 0x1000, Heap: 0x4000, End: 0x5000,
		}}
		o.Mem[0xfff], o.Mem[0x2fff], o.Mem[0x3fff] = 1, 2, 3
		d := queuetest.NewDriver(o)
		if cfg := d.Config(); cfg.Desc != 0x3000 || cfg.Driver != 0x2000 || cfg.Device != 0x1000 {
			t.Errorf("packed %v: Config = %+v", packed, cfg)
		}
		q, err := virtqueue.New(d.Memory(), d.Config())
		if err != nil {
			t.Fatal(err)
		}
		tok, err := d.Add([][]byte{{7}}, []int{8}, false)
		if err != nil {
			t.Fatal(err)
		}
		var chain virtqueue.Chain
		if ok, err := q.Pop(&chain); !ok || err != nil {
			t.Fatalf("packed %v: Pop = %v, %v", packed, ok, err)
		}
		if err := q.Push(&chain, 5); err != nil {
			t.Fatal(err)
		}
		if got, written, _, ok := d.Poll(); !ok || got != tok || written != 5 {
			t.Errorf("packed %v: Poll = token %d, %d bytes, %v, want token %d, 5 bytes", packed, got, written, ok, tok)
		}
		if o.Mem[0xfff] != 1 || o.Mem[0x2fff] != 2 || o.Mem[0x3fff] != 3 {
			t.Errorf("packed %v: memory beside the ring was touched", packed)
		}
	}
}

func TestImpossibleOptionsPanic(t *testing.T) {
	for name, o := range map[string]queuetest.Options{
		"too little memory": {Mem: make([]byte, 64)},
		"misaligned gpa":    {Mem: make([]byte, 1<<16), GPA: 8},
		"misaligned memory": {Mem: make([]byte, 1<<16)[1:]},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("NewDriver did not panic")
				}
			}()
			queuetest.NewDriver(o)
		})
	}
}
