// SPDX-License-Identifier: Apache-2.0

package queuetest

// buffers allocates and fills the buffers of c and returns their descriptors,
// all but the links.
func (d *Driver) buffers(c *chain, readable [][]byte, writable []int) ([]Desc, error) {
	var descs []Desc
	for _, data := range readable {
		e, err := d.allocFor(c, len(data))
		if err != nil {
			return nil, err
		}
		copy(d.o.Mem[e.off:], data)
		descs = append(descs, Desc{Addr: d.GPA(e.off), Len: uint32(len(data))})
	}
	for _, n := range writable {
		e, err := d.allocFor(c, n)
		if err != nil {
			return nil, err
		}
		clear(d.o.Mem[e.off : e.off+n])
		c.writable = append(c.writable, extent{e.off, n})
		c.room += n
		descs = append(descs, Desc{Addr: d.GPA(e.off), Len: uint32(n), Flags: FlagWrite})
	}
	return descs, nil
}

// intoTable moves descs into an indirect table and returns the one descriptor
// that refers to it.
func (d *Driver) intoTable(c *chain, descs []Desc) ([]Desc, error) {
	e, err := d.allocFor(c, len(descs)*descSize)
	if err != nil {
		return nil, err
	}
	if !d.o.Packed {
		linkAll(descs)
	}
	for i, desc := range descs {
		d.PutDesc(e.off+i*descSize, desc)
	}
	return []Desc{{Addr: d.GPA(e.off), Len: uint32(len(descs) * descSize), Flags: FlagIndirect}}, nil
}

// linkAll chains the entries of a split table in order.
func linkAll(descs []Desc) {
	for i := range descs[:len(descs)-1] {
		descs[i].Flags |= FlagNext
		descs[i].Link = uint16(i + 1)
	}
}

func (d *Driver) allocFor(c *chain, n int) (extent, error) {
	e, ok := d.heap.alloc(n)
	if !ok {
		return extent{}, ErrNoMemory
	}
	c.extents = append(c.extents, e)
	return e, nil
}

func (d *Driver) release(c *chain) {
	for _, e := range c.extents {
		d.heap.release(e)
	}
}

// gather copies the first n bytes of c's writable part.
func (d *Driver) gather(c *chain, n int) []byte {
	in := make([]byte, 0, n)
	for _, e := range c.writable {
		k := min(e.n, n-len(in))
		in = append(in, d.o.Mem[e.off:e.off+k]...)
	}
	return in
}
