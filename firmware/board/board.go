// SPDX-License-Identifier: Apache-2.0

package board

import (
	"context"
	"fmt"
	"net"
	"sync"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/abi/vfiouser"
	"hwvtpm/internal/unixsock"
)

// slots is how many slots of a card the function shows: those with the lowest
// numbers. One message of vfio-user carries 16 eventfds, and a driver behind an
// IOMMU maps four pages for each: more is possible, and slower to set up.
const slots = 64

// vectors is the number of MSI-X vectors: one for each queue.
const vectors = 1 + slots

// The MSI-X table ends before the pending bits.
const _ = uint(abi.BarMSIXPending - abi.BarMSIXTable - vectors*msixEntrySize)

// Config describes a board.
type Config struct {
	// Open gives a session of the card with the rights of an administrator:
	// who has the function has the card. Needed.
	Open func() Session

	// IDs are the function's. Zero: ExperimentalIDs.
	IDs IDs

	// Logger takes the board's log. Nil: none.
	Logger hclog.Logger
}

// Card is one PCI function.
type Card struct {
	cfg   Config
	log   hclog.Logger
	tasks sync.WaitGroup // of the present client

	mu      sync.Mutex // guards what follows
	pci     *configSpace
	mem     memory
	events  [vectors]*vfiouser.FD
	table   [vectors * msixEntrySize]byte
	control uint32
	fatal   abi.Fault
	reg     adminRegisters
	admin   queue
	office  *office // nil: the admin queue is not in service
	slots   [slots]slot
}

// New gives a card as it is after power-up.
func New(cfg Config) *Card {
	if cfg.IDs == (IDs{}) {
		cfg.IDs = ExperimentalIDs
	}
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	c := &Card{cfg: cfg, log: cfg.Logger, pci: newConfigSpace(cfg.IDs)}
	for i := range c.slots {
		c.slots[i].number = uint32(i)
	}
	return c
}

// Serve serves the clients of l, one after the other, until ctx ends, which is no
// error, or l is closed. A client finds the card as after power-up.
func (c *Card) Serve(ctx context.Context, l *net.UnixListener) error {
	failed := func(err error) { c.log.Error("client not accepted", "error", err) }
	err := unixsock.AcceptSpeakers(ctx, l, failed, func(sock *net.UnixConn) {
		defer context.AfterFunc(ctx, func() { sock.Close() })()
		if err := c.ServeConn(sock); err != nil && ctx.Err() == nil {
			c.log.Warn("session of a client ended", "error", err)
		}
	})
	if err != nil {
		return fmt.Errorf("vfio-user: %w", err)
	}
	return nil
}

// ServeConn serves one client until it hangs up or breaks the protocol. No
// other may be served at the same time.
func (c *Card) ServeConn(sock *net.UnixConn) error {
	defer c.disconnect()
	return vfiouser.Serve(sock, (*function)(c))
}

// disconnect forgets a client and all that was its, and waits until nobody works
// for it any more.
func (c *Card) disconnect() {
	defer c.tasks.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resetFunction()
	c.setVectors(0, make([]*vfiouser.FD, vectors))
	c.mem.clear()
}

// resetFunction is a function reset. What the client gave, memory and events,
// is the bus's and stays. mu is held.
func (c *Card) resetFunction() {
	c.reset()
	c.pci = newConfigSpace(c.cfg.IDs)
	clear(c.table[:])
}

// reset is ControlReset. mu is held.
func (c *Card) reset() {
	c.stop()
	c.fatal = abi.FaultNone
	c.reg = adminRegisters{}
}

// stop ends all queues. mu is held.
func (c *Card) stop() {
	for i := range c.slots {
		c.slots[i].end()
	}
	c.endAdmin()
	c.control = 0
}

// function is the card as the bus sees it.
type function Card

var _ vfiouser.Device = (*function)(nil)

func (f *function) Region(index uint32) uint64 {
	switch index {
	case vfiouser.RegionBAR0:
		return abi.BarSize(slots)
	case vfiouser.RegionConfig:
		return configSize
	}
	return 0
}

func (f *function) Vectors() uint32 { return vectors }

func (f *function) ReadRegion(index uint32, off uint64, b []byte) error {
	c := (*Card)(f)
	c.mu.Lock()
	defer c.mu.Unlock()
	if index == vfiouser.RegionConfig {
		copy(b, c.pci.data[off:])
		return nil
	}
	c.readBAR(off, b)
	return nil
}

func (f *function) WriteRegion(index uint32, off uint64, b []byte) error {
	c := (*Card)(f)
	c.mu.Lock()
	defer c.mu.Unlock()
	if index != vfiouser.RegionConfig {
		c.writeBAR(off, b)
		return nil
	}
	if c.pci.write(int(off), b) {
		c.resetFunction()
	}
	c.release() // bus mastering may be on now
	c.work()
	return nil
}

func (f *function) MapDMA(m vfiouser.DMAMap, fd *vfiouser.FD) error {
	defer fd.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mem.add(m, fd)
}

func (f *function) UnmapDMA(address, size uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mem.remove(address, size)
}

func (f *function) SetVectors(start uint32, fds []*vfiouser.FD) {
	f.mu.Lock()
	defer f.mu.Unlock()
	(*Card)(f).setVectors(start, fds)
}

func (c *Card) setVectors(start uint32, fds []*vfiouser.FD) {
	for i, fd := range fds {
		c.events[int(start)+i].Close()
		c.events[int(start)+i] = fd
	}
}

func (f *function) Reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	(*Card)(f).resetFunction()
}
