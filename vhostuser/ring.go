// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"hwvtpm/internal/memfault"
	"hwvtpm/virtqueue"
)

// ring is a started vring with its goroutine. The session goroutine makes it,
// changes it by its methods and stops it; the ring goroutine runs the loop in
// ring_loop.go.
//
// Who holds what: mu guards everything that both sides touch. The ring
// goroutine holds it while it touches guest memory (pop, copy in, copy out,
// push, call), and never while it polls or while the device handles a request.
// So the session goroutine never waits long for mu, and once it has swapped a
// memory table or a descriptor under mu, nobody uses the old one any more.
type ring struct {
	index int
	dev   Device
	log   hclog.Logger
	areas [3]area
	wake  *fd           // private eventfd: look at the fields below again
	done  chan struct{} // closed when the goroutine has returned

	breaks *atomic.Int32 // the session's

	mu       sync.Mutex
	queue    *virtqueue.Queue
	memory   *virtqueue.Memory
	inflight *inflightQueue
	kick     *fd // kick, call and errs belong to the vring; nil: none
	call     *fd
	errs     *fd
	enabled  bool
	mapped   bool // the ring's own addresses lie in memory
	stopping bool
	broken   error // set once: the ring is dead until it is stopped
	scratch  [8]byte

	// Only the ring goroutine touches these.
	chain   virtqueue.Chain
	req     virtqueue.Request
	in, out []byte
	polled  [2]unix.PollFd
	armed   bool // kicks were asked for since the last request
}

// area is a part of a ring in user addresses.
type area struct{ addr, size uint64 }

// areasOf returns the parts of a ring (VIRTIO 1.3 2.7, 2.8: sizes in bytes).
func areasOf(cfg virtqueue.Config) [3]area {
	n := uint64(cfg.Size)
	if cfg.Features&(1<<virtqueue.FeatureRingPacked) != 0 {
		return [3]area{{cfg.Desc, 16 * n}, {cfg.Driver, 4}, {cfg.Device, 4}}
	}
	return [3]area{{cfg.Desc, 16 * n}, {cfg.Driver, 6 + 2*n}, {cfg.Device, 6 + 8*n}}
}

// startRing starts the goroutine of r, in which the caller has set all that
// identifies it and all that mu guards.
func startRing(r *ring) error {
	wake, err := newEvent()
	if err != nil {
		return err
	}
	in, out := r.dev.Limits()
	r.wake, r.done = wake, make(chan struct{})
	r.in, r.out = make([]byte, in), make([]byte, out)
	r.enabled, r.mapped = true, true
	go r.run()
	return nil
}

// change applies f under mu and makes the ring goroutine look at the result.
func (r *ring) change(f func()) {
	r.mu.Lock()
	f()
	signalEvent(r.wake, r.scratch[:])
	r.mu.Unlock()
}

func (r *ring) setEnabled(on bool) { r.change(func() { r.enabled = on }) }
func (r *ring) setKick(f *fd)      { r.change(func() { r.kick = f }) }
func (r *ring) setCall(f *fd)      { r.change(func() { r.call = f }) }
func (r *ring) setErr(f *fd)       { r.change(func() { r.errs = f }) }

// setLog changes dirty logging on the fly, as live migration does.
func (r *ring) setLog(log *virtqueue.DirtyLog, used bool, usedAddr uint64) {
	r.change(func() { r.queue.SetLog(log, used, usedAddr) })
}

// setMemory switches to another memory table; nil is an empty one. A table in
// which the ring itself does not lie pauses the ring until one comes in which
// it does: QEMU changes a region by REM_MEM_REG and then ADD_MEM_REG. The
// queue keeps its stale view meanwhile, and nobody touches it.
func (r *ring) setMemory(m *virtqueue.Memory) {
	r.change(func() {
		r.memory, r.mapped = m, false
		if r.broken != nil || !r.liesIn(m) {
			return
		}
		if err := memfault.Catch(func() error { return r.queue.SetMemory(m) }); err != nil {
			r.breakLocked(err)
			return
		}
		r.mapped = true
	})
}

// liesIn reports whether all parts of the ring are in m.
func (r *ring) liesIn(m *virtqueue.Memory) bool {
	if m == nil {
		return false
	}
	for _, a := range r.areas {
		if _, err := m.User(a.addr, a.size); err != nil {
			return false
		}
	}
	return true
}

// failure returns why the ring is broken, or nil.
func (r *ring) failure() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.broken
}

// requestStop makes the goroutine return after the request in flight, whose
// result still goes to the driver: the spec wants requests completed, and a
// device's request must not be executed twice.
func (r *ring) requestStop() { r.change(func() { r.stopping = true }) }

// join waits until the goroutine has returned, asking the device to hurry
// after grace, or at once when hurry is closed. It returns the vring base.
// requestStop must have been called.
func (r *ring) join(grace time.Duration, hurry <-chan struct{}) uint32 {
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-r.done:
	case <-timer.C:
		r.dev.Interrupt(r.index)
	case <-hurry:
		r.dev.Interrupt(r.index)
	}
	<-r.done
	base := r.queue.Base()
	r.queue.Close()
	r.wake.close()
	return base
}
