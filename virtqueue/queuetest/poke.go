// SPDX-License-Identifier: Apache-2.0

package queuetest

// Layout returns where the parts of the ring are.
func (d *Driver) Layout() Layout { return d.lay }

// Bytes returns the driver's memory itself.
func (d *Driver) Bytes() []byte { return d.o.Mem }

// GPA returns the guest physical address of offset off of the memory.
func (d *Driver) GPA(off int) uint64 { return d.o.GPA + uint64(off) }

// User returns the front-end's address of offset off of the memory.
func (d *Driver) User(off int) uint64 { return d.o.UserAddr + uint64(off) }

// Alloc takes n bytes of the heap for good and returns their offset. It panics
// if the heap is full.
func (d *Driver) Alloc(n int) int {
	e, ok := d.heap.alloc(n)
	if !ok {
		panic(ErrNoMemory)
	}
	return e.off
}

// PutTable writes descs verbatim as an indirect table on the heap and returns
// its guest physical address.
func (d *Driver) PutTable(descs ...Desc) uint64 {
	off := d.Alloc(len(descs) * descSize)
	for i, desc := range descs {
		d.PutDesc(off+i*descSize, desc)
	}
	return d.GPA(off)
}

// Offer makes descs available verbatim as one chain, and keeps no book of it.
// On a split ring they become entries 0, 1, ... of the table, with Flags and
// Link as given, and 0 is the head. On a packed ring they go into the next
// slots with the flags that make them available added; Link is the buffer id.
func (d *Driver) Offer(descs ...Desc) {
	if p, ok := d.ring.(*packed); ok {
		p.offer(descs)
		return
	}
	for i, desc := range descs {
		d.SetDesc(i, desc)
	}
	d.split().offer(0)
}
