// SPDX-License-Identifier: Apache-2.0

package vhostusertest

import (
	"fmt"
	"time"

	"hwvtpm/virtqueue/queuetest"
)

// fastPath is the front-end's half of ExchangeInto: one chain at a time, in
// buffers that were laid out once.
type fastPath struct {
	d       *queuetest.Driver
	opts    Options
	in, out int // offsets of the buffers
	table   int // offset of the indirect table
	used    uint16
}

// fastBuffer is the size of each of the two buffers.
const fastBuffer = 16 << 10

func (f *Frontend) newFastPath() (*fastPath, error) {
	if f.driver.InFlight() > 0 {
		return nil, fmt.Errorf("vhostusertest: %d chains in flight", f.driver.InFlight())
	}
	p := &fastPath{d: f.driver, opts: f.opts}
	p.in, p.out, p.table = p.d.Alloc(fastBuffer), p.d.Alloc(fastBuffer), p.d.Alloc(32)
	if !f.opts.Packed {
		p.used = p.d.UsedIdx()
	}
	return p, nil
}

// ExchangeInto is Exchange without a single allocation, for benchmarks: the
// response is copied to resp, whose length is the writable length offered.
// After the first ExchangeInto, Exchange works only after Restart.
func (f *Frontend) ExchangeInto(req, resp []byte) (int, error) {
	if f.fast == nil {
		p, err := f.newFastPath()
		if err != nil {
			return 0, err
		}
		f.fast = p
	}
	p := f.fast
	if len(req) == 0 || len(req) > fastBuffer || len(resp) == 0 || len(resp) > fastBuffer {
		return 0, fmt.Errorf("vhostusertest: request of %d and response of %d bytes", len(req), len(resp))
	}
	slot, wrap := p.offer(req, len(resp))
	f.KickIfNeeded()
	deadline := time.Now().Add(f.opts.Timeout)
	for {
		if n, ok := p.poll(slot, wrap); ok {
			return copy(resp, p.d.Bytes()[p.out:p.out+int(min(n, uint32(len(resp))))]), nil
		}
		if err := WaitEvent(f.Call, time.Until(deadline)); err != nil {
			return 0, err
		}
	}
}

// offer makes the chain available and asks for a call when it is used.
func (p *fastPath) offer(req []byte, respCap int) (slot int, wrap bool) {
	copy(p.d.Bytes()[p.in:], req)
	a := queuetest.Desc{Addr: p.d.GPA(p.in), Len: uint32(len(req)), Flags: queuetest.FlagNext, Link: 1}
	b := queuetest.Desc{Addr: p.d.GPA(p.out), Len: uint32(respCap), Flags: queuetest.FlagWrite}
	if p.opts.Packed {
		slot, wrap = p.d.NextSlot()
		p.armPacked(slot, wrap)
	} else if p.opts.EventIdx {
		p.d.SetUsedEvent(p.used)
	}
	if !p.opts.Indirect {
		p.d.Offer(a, b)
		return slot, wrap
	}
	if p.opts.Packed {
		a.Flags = 0 // a packed table is in order, without links (VIRTIO 1.3 2.8.7)
	}
	p.d.PutDesc(p.table, a)
	p.d.PutDesc(p.table+16, b)
	p.d.Offer(queuetest.Desc{Addr: p.d.GPA(p.table), Len: 32, Flags: queuetest.FlagIndirect})
	return slot, wrap
}

func (p *fastPath) armPacked(slot int, wrap bool) {
	if !p.opts.EventIdx {
		p.d.SetDriverEvent(0, queuetest.EventEnable)
		return
	}
	at := uint16(slot)
	if wrap {
		at |= 1 << 15
	}
	p.d.SetDriverEvent(at, queuetest.EventDesc)
}

// poll looks whether the chain is used, and how much was written.
func (p *fastPath) poll(slot int, wrap bool) (uint32, bool) {
	if p.opts.Packed {
		return p.pollPacked(slot, wrap)
	}
	if p.d.UsedIdx() == p.used {
		return 0, false
	}
	_, n := p.d.UsedElem(p.used)
	p.used++
	return n, true
}

func (p *fastPath) pollPacked(slot int, wrap bool) (uint32, bool) {
	d := p.d.Desc(slot)
	used, avail := d.Flags&queuetest.FlagUsed != 0, d.Flags&queuetest.FlagAvail != 0
	if used != wrap || avail != wrap {
		return 0, false
	}
	if d.Flags&queuetest.FlagWrite == 0 {
		return 0, true
	}
	return p.d.Desc(slot).Len, true // read after the flags that publish it
}
