// SPDX-License-Identifier: Apache-2.0

package queuetest

import (
	"errors"
	"fmt"

	"hwvtpm/virtqueue"
)

// Errors of [Driver.Add].
var (
	ErrFull     = errors.New("queuetest: ring full")           // too few free descriptors
	ErrNoMemory = errors.New("queuetest: heap full")           // too little heap
	ErrFeature  = errors.New("queuetest: not negotiated")      // indirect without the feature
	ErrEmpty    = errors.New("queuetest: chain of no buffers") // each buffer has at least one element (2.8)
)

// Token names one chain from Add to Poll. Tokens count up from 1.
type Token int

// Driver is the guest's end of one virtqueue.
type Driver struct {
	o       Options
	lay     Layout
	mem     *virtqueue.Memory
	heap    heap
	ring    ring
	pending map[uint16]*chain // by head descriptor or buffer id
	last    Token
	err     error
}

// chain is one chain the device holds.
type chain struct {
	token    Token
	extents  []extent // all memory of the chain, tables too
	writable []extent // exact lengths, in order
	room     int      // sum of writable
	descs    []uint16 // split: ring descriptors it occupies
	slots    int      // packed: ring slots it occupies
}

// ring is what differs between the formats.
type ring interface {
	// free returns how many descriptors of the ring are free.
	free() int
	// place writes and publishes the descriptors and returns the id by which
	// the device will name the chain.
	place(c *chain, descs []Desc) uint16
	// used returns the next used entry, or false if there is none.
	used() (id uint16, written uint32, ok bool)
	// reap frees what c, named by the last used entry, occupied.
	reap(id uint16, c *chain)
	// needKick answers for all chains placed since it was last asked.
	needKick() bool
	// armCalls and disarmCalls write the driver's notification request.
	armCalls()
	disarmCalls()
}

// NewDriver lays out a ring. It panics if the options are impossible.
func NewDriver(o Options) *Driver {
	o = o.withMemory()
	d := &Driver{o: o, lay: layout(o), pending: make(map[uint16]*chain)}
	region := virtqueue.Region{GPA: o.GPA, UserAddr: o.UserAddr, Mem: o.Mem}
	mem, err := virtqueue.NewMemory([]virtqueue.Region{region})
	if err != nil {
		panic(err)
	}
	d.mem = mem
	desc, driver, device := o.sizes()
	clear(o.Mem[d.lay.Desc:][:desc])
	clear(o.Mem[d.lay.Driver:][:driver])
	clear(o.Mem[d.lay.Device:][:device])
	d.heap.free = []extent{{d.lay.Heap, d.lay.End - d.lay.Heap}}
	if o.Packed {
		d.ring = newPacked(d)
	} else {
		d.ring = newSplit(d)
	}
	return d
}

// Memory returns the driver's memory as the device's single region.
func (d *Driver) Memory() *virtqueue.Memory { return d.mem }

// Config returns the ring as the device's transport would be told of it, with
// the Base the driver was created with.
func (d *Driver) Config() virtqueue.Config {
	return virtqueue.Config{
		Size:     d.o.Size,
		Features: d.o.features(),
		Desc:     d.User(d.lay.Desc),
		Driver:   d.User(d.lay.Driver),
		Device:   d.User(d.lay.Device),
		Base:     d.o.Base,
	}
}

// Add offers one chain: the contents of readable, then writable buffers of the
// given lengths, each its own descriptor, in the ring or in an indirect table.
// The device may see it before Add returns; whether it must be kicked is
// NeedKick's answer.
func (d *Driver) Add(readable [][]byte, writable []int, indirect bool) (Token, error) {
	n := len(readable) + len(writable)
	switch {
	case n == 0:
		return 0, ErrEmpty
	case indirect && !d.o.Indirect:
		return 0, ErrFeature
	case n > int(d.o.Size):
		return 0, fmt.Errorf("%w: chain of %d, queue size %d (2.7.5.3.1)", ErrFull, n, d.o.Size)
	case indirect && d.ring.free() < 1, !indirect && d.ring.free() < n:
		return 0, ErrFull
	}
	c := new(chain)
	descs, err := d.buffers(c, readable, writable)
	if err == nil && indirect {
		descs, err = d.intoTable(c, descs)
	}
	if err != nil {
		d.release(c)
		return 0, err
	}
	d.last++
	c.token = d.last
	d.pending[d.ring.place(c, descs)] = c
	return c.token, nil
}

// Poll takes back the next chain the device used: its token, the used length,
// and a copy of the first written bytes of its writable part. ok is false if
// the device used none, or broke a rule (see Err).
func (d *Driver) Poll() (tok Token, written uint32, in []byte, ok bool) {
	id, written, ok := d.ring.used()
	if !ok || d.err != nil {
		return 0, 0, nil, false
	}
	c := d.pending[id]
	if c == nil {
		d.fail("device used %d, which it does not hold", id)
		return 0, 0, nil, false
	}
	if int(written) > c.room {
		d.fail("device claims %d bytes in a chain with room for %d", written, c.room)
		return 0, 0, nil, false
	}
	in = d.gather(c, int(written))
	delete(d.pending, id)
	d.ring.reap(id, c)
	d.release(c)
	return c.token, written, in, true
}

// InFlight returns how many chains the device holds or has not been polled for.
func (d *Driver) InFlight() int { return len(d.pending) }

// Free returns how many descriptors of the ring are free.
func (d *Driver) Free() int { return d.ring.free() }

// Err returns the first rule that the device broke, or nil.
func (d *Driver) Err() error { return d.err }

// NeedKick reports whether the device wants to be notified of what was added
// since the last NeedKick.
func (d *Driver) NeedKick() bool { return d.ring.needKick() }

// EnableCall asks the device for a call when it uses the next chain, and reports
// whether it has used one already, so that the caller polls before it waits.
func (d *Driver) EnableCall() bool {
	d.ring.armCalls()
	_, _, ok := d.ring.used()
	return ok
}

// DisableCall asks the device for no calls. With EVENT_IDX on a split ring
// there is no such request: the event stays where it is, behind.
func (d *Driver) DisableCall() { d.ring.disarmCalls() }

func (d *Driver) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("queuetest: "+format, args...)
	}
}
