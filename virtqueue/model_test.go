// SPDX-License-Identifier: Apache-2.0

package virtqueue_test

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"hwvtpm/virtqueue"
	"hwvtpm/virtqueue/queuetest"
)

// machine runs a driver and a queue against a model of what each must see:
// chains reach the device in the order of Add, with their bytes, and reach the
// driver in the order of Push, with the device's bytes.
type machine struct {
	o       queuetest.Options
	d       *queuetest.Driver
	q       *virtqueue.Queue
	offered []offer // added, not popped; in order
	held    []held  // popped, not pushed
	done    []reply // pushed, not polled; in order
	spare   []*virtqueue.Chain
	log     []byte
}

type offer struct {
	tok     queuetest.Token
	request []byte
	room    int
}

type held struct {
	offer
	chain *virtqueue.Chain
}

type reply struct {
	tok  queuetest.Token
	data []byte
}

func drawOptions(t *rapid.T) queuetest.Options {
	o := queuetest.Options{
		Packed:   rapid.Bool().Draw(t, "packed"),
		Indirect: rapid.Bool().Draw(t, "indirect"),
		EventIdx: rapid.Bool().Draw(t, "event_idx"),
	}
	if o.Packed {
		o.Size = uint16(rapid.IntRange(1, 9).Draw(t, "size"))
	} else {
		o.Size = 1 << rapid.IntRange(0, 4).Draw(t, "log2 size")
	}
	if rapid.Bool().Draw(t, "near wrap") {
		o = nearWrap(o)
	}
	o.Mem = make([]byte, queuetest.MinMemory(o)+6*4096)
	o.GPA, o.UserAddr = 0x10000, 0x7f0000000000
	return o
}

func newMachine(t *rapid.T) *machine {
	m := &machine{o: drawOptions(t), log: make([]byte, 16)}
	m.d = queuetest.NewDriver(m.o)
	m.open(t, m.d.Config().Base)
	return m
}

func (m *machine) open(t *rapid.T, base uint32) {
	cfg := m.d.Config()
	cfg.Base = base
	cfg.Log, cfg.LogUsed, cfg.LogUsedAddr = virtqueue.NewDirtyLog(m.log), true, m.d.GPA(m.d.Layout().Device)
	q, err := virtqueue.New(m.d.Memory(), cfg)
	if err != nil {
		t.Fatalf("New at base %#x = %v", cfg.Base, err)
	}
	m.q = q
}

func (m *machine) add(t *rapid.T) {
	lens := rapid.SliceOfN(rapid.IntRange(0, 700), 0, 4)
	var readable [][]byte
	for i, n := range lens.Draw(t, "readable") {
		readable = append(readable, pattern(len(m.offered)*8+i, n))
	}
	writable := lens.Draw(t, "writable")
	tok, err := m.d.Add(readable, writable, m.o.Indirect && rapid.Bool().Draw(t, "in a table"))
	if err != nil {
		t.Skip(err)
	}
	room := 0
	for _, n := range writable {
		room += n
	}
	m.offered = append(m.offered, offer{tok, bytes.Join(readable, nil), room})
}

func (m *machine) pop(t *rapid.T) {
	c := new(virtqueue.Chain)
	if n := len(m.spare); n > 0 {
		c, m.spare = m.spare[n-1], m.spare[:n-1]
	}
	ok, err := m.q.Pop(c)
	if err != nil || ok != (len(m.offered) > 0) {
		t.Fatalf("Pop = %v, %v with %d chains offered", ok, err, len(m.offered))
	}
	if !ok {
		return
	}
	want := m.offered[0]
	m.offered = m.offered[1:]
	if int(c.Readable()) != len(want.request) || int(c.Writable()) != want.room {
		t.Fatalf("chain of %d+%d bytes, want %d+%d", c.Readable(), c.Writable(), len(want.request), want.room)
	}
	m.held = append(m.held, held{want, c})
}

func (m *machine) push(t *rapid.T) {
	if len(m.held) == 0 {
		t.Skip("nothing held")
	}
	i := rapid.IntRange(0, len(m.held)-1).Draw(t, "which")
	h := m.held[i]
	m.held = append(m.held[:i], m.held[i+1:]...)
	got := make([]byte, len(h.request)+1)
	if n, err := h.chain.ReadAt(m.d.Memory(), got, 0); err != nil || !bytes.Equal(got[:n], h.request) {
		t.Fatalf("ReadAt = %d, %v, not what token %d offered", n, err, h.tok)
	}
	data := pattern(int(h.tok)+1000, rapid.IntRange(0, h.room).Draw(t, "written"))
	if _, err := h.chain.WriteAt(m.q, data, 0); err != nil {
		t.Fatalf("WriteAt = %v", err)
	}
	if err := m.q.Push(h.chain, uint32(len(data))); err != nil {
		t.Fatalf("Push = %v", err)
	}
	m.spare = append(m.spare, h.chain)
	m.done = append(m.done, reply{h.tok, data})
}

func (m *machine) poll(t *rapid.T) {
	tok, written, data, ok := m.d.Poll()
	if ok != (len(m.done) > 0) {
		t.Fatalf("Poll = %v with %d chains done (%v)", ok, len(m.done), m.d.Err())
	}
	if !ok {
		return
	}
	want := m.done[0]
	m.done = m.done[1:]
	if tok != want.tok || int(written) != len(want.data) || !bytes.Equal(data, want.data) {
		t.Fatalf("Poll = token %d with %d bytes, want token %d with %d", tok, written, want.tok, len(want.data))
	}
}

func (m *machine) enableKick(t *rapid.T) {
	more, err := m.q.EnableKick()
	if err != nil || more != (len(m.offered) > 0) {
		t.Fatalf("EnableKick = %v, %v with %d chains offered", more, err, len(m.offered))
	}
}

// restart stops the ring and continues from its base, as GET_VRING_BASE and
// SET_VRING_BASE do. Offered and finished chains survive; held ones would not.
func (m *machine) restart(t *rapid.T) {
	if len(m.held) > 0 {
		t.Skip("chains held")
	}
	base := m.q.Base()
	m.q.Close()
	m.open(t, base)
	if m.q.Base() != base {
		t.Fatalf("Base = %#x after a restart at %#x", m.q.Base(), base)
	}
}

// logged runs a device action and compares all of guest memory: every page that
// changed MUST be marked, and no page may be marked that was not written.
func (m *machine) logged(action func(*rapid.T)) func(*rapid.T) {
	return func(t *rapid.T) {
		clear(m.log)
		before := bytes.Clone(m.d.Bytes())
		action(t)
		log := virtqueue.NewDirtyLog(m.log)
		for off := range before {
			if before[off] != m.d.Bytes()[off] && !log.Dirty(m.d.GPA(off)) {
				t.Fatalf("byte at offset %d changed in a page that is not marked", off)
			}
		}
	}
}

// The model: any interleaving of driver and device, on any ring.
func TestQueueAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(t)
		t.Repeat(map[string]func(*rapid.T){
			"add":          m.add,
			"add again":    m.add,
			"pop":          m.logged(m.pop),
			"push":         m.logged(m.push),
			"push more":    m.logged(m.push),
			"poll":         m.poll,
			"enable kick":  m.logged(m.enableKick),
			"disable kick": m.logged(func(*rapid.T) { m.q.DisableKick() }),
			"need call":    m.logged(func(*rapid.T) { m.q.NeedCall() }),
			"restart":      m.logged(m.restart),
			"driver arms":  func(*rapid.T) { m.d.EnableCall() },
		})
		for len(m.offered) > 0 || len(m.held) > 0 || len(m.done) > 0 { // and all of it ends
			m.pop(t)
			if len(m.held) > 0 {
				m.push(t)
			}
			m.poll(t)
		}
		if m.d.InFlight() != 0 || m.d.Free() != int(m.o.Size) {
			t.Fatalf("%d in flight and %d of %d free at the end", m.d.InFlight(), m.d.Free(), m.o.Size)
		}
	})
}
