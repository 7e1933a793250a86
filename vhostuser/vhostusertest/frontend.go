// SPDX-License-Identifier: Apache-2.0

package vhostusertest

import (
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"

	vu "hwvtpm/vhostuser"
	"hwvtpm/virtqueue"
	"hwvtpm/virtqueue/queuetest"
)

// Addresses that guest memory gets. They differ from each other and from any
// address in this process, so mixing them up is noticed.
const (
	GuestBase = 0x0000_0001_0000_0000
	UserBase  = 0x0000_7abc_d000_0000
)

// Options of a front-end. The zero value is a split ring of 64 in 1 MiB of
// memory with no optional features.
type Options struct {
	Packed, EventIdx, Indirect bool
	LogAll                     bool   // accept VHOST_F_LOG_ALL and set a dirty log
	QueueSize                  uint16 // 0: 64, QEMU's default for the generic device
	MemSize                    int    // bytes of guest memory; 0: 1 MiB
	Features                   uint64 // device feature bits to accept if offered
	MemSlots                   bool   // ADD_MEM_REG instead of SET_MEM_TABLE, as QEMU does if offered
	Inflight                   bool   // ask for in-flight tracking
	Timeout                    time.Duration
}

func (o Options) withDefaults() Options {
	if o.QueueSize == 0 {
		o.QueueSize = 64
	}
	if o.MemSize == 0 {
		o.MemSize = 1 << 20
	}
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	return o
}

// Frontend is a front-end with one queue.
type Frontend struct {
	Conn
	Mem             *Memory
	Log             *Memory  // dirty log, one bit per page from guest address 0; nil: none
	Area            Inflight // in-flight area; FD -1: none
	Kick, Call, Err int      // eventfds

	opts     Options
	driver   *queuetest.Driver
	features uint64 // offered
	protocol uint64 // accepted
	base     uint32
	backend  [2]int // socket pair for messages from the back-end
	fast     *fastPath
	closed   bool
}

// Dial connects to the back-end at path and starts the queue.
func Dial(path string, o Options) (*Frontend, error) {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("vhostusertest: %w", err)
	}
	f, err := Open(c, o)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Realize(), f.Start()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Open makes a front-end on c, which it takes over, and sends nothing.
func Open(c *net.UnixConn, o Options) (*Frontend, error) {
	o = o.withDefaults()
	f := &Frontend{Conn: Conn{c, o.Timeout}, opts: o, Area: Inflight{FD: -1}, Kick: -1, Call: -1, Err: -1, backend: [2]int{-1, -1}}
	if err := f.allocate(); err != nil {
		f.Close()
		return nil, err
	}
	f.newDriver(0)
	return f, nil
}

func (f *Frontend) allocate() (err error) {
	if f.Mem, err = NewMemory(f.opts.MemSize); err != nil {
		return err
	}
	for _, p := range []*int{&f.Kick, &f.Call, &f.Err} {
		if *p, err = Eventfd(); err != nil {
			return err
		}
	}
	if f.opts.LogAll {
		pages := (GuestBase + f.opts.MemSize) / 4096
		if f.Log, err = NewMemory((pages/8 + 4095) &^ 4095); err != nil {
			return err
		}
	}
	f.backend, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	return err
}

// newDriver lays the ring out anew, as a guest driver that binds does. A base
// of 0 is a ring that never ran.
func (f *Frontend) newDriver(base uint32) {
	f.driver = queuetest.NewDriver(queuetest.Options{
		Size: f.opts.QueueSize, Packed: f.opts.Packed, Indirect: f.opts.Indirect, EventIdx: f.opts.EventIdx,
		Mem: f.Mem.Bytes, GPA: GuestBase, UserAddr: UserBase, Base: base,
	})
	f.base = f.driver.Config().Base
	if f.opts.Packed && base == 0 {
		f.base = 0x8000_8000
	}
	f.fast = nil
}

// Driver returns the guest's end of the queue. A driver belongs to one ring:
// Restart makes a new one.
func (f *Frontend) Driver() *queuetest.Driver { return f.driver }

// Region returns guest memory as the back-end is told of it.
func (f *Frontend) Region() Region {
	return Region{GPA: GuestBase, Size: uint64(f.opts.MemSize), User: UserBase, FD: f.Mem.FD}
}

// BackendChannel returns the front-end's end of the socket on which the
// back-end sends its own messages.
func (f *Frontend) BackendChannel() int { return f.backend[0] }

// BackendEnd returns the other end of that socket, which Realize passes on.
func (f *Frontend) BackendEnd() int { return f.backend[1] }

// Offered returns the virtio features of the back-end; Realize asks for them.
func (f *Frontend) Offered() uint64 { return f.features }

// Accepted returns the virtio features that Start accepts.
func (f *Frontend) Accepted() uint64 {
	want := f.opts.Features | f.driver.Config().Features | 1<<vu.FeatureProtocolFeatures
	if f.opts.LogAll {
		want |= 1 << vu.FeatureLogAll
	}
	return want & f.features
}

// Close ends the session as QEMU's exit does: by hanging up. It is idempotent.
func (f *Frontend) Close() {
	if f.closed {
		return
	}
	f.closed = true
	_ = f.Sock.Close()
	for _, fd := range []int{f.Kick, f.Call, f.Err, f.backend[0], f.backend[1], f.Area.FD} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
	for _, m := range []*Memory{f.Mem, f.Log} {
		if m != nil {
			m.Close()
		}
	}
}

// packedBit is the feature that a packed ring needs.
const packedBit = uint64(1) << virtqueue.FeatureRingPacked
