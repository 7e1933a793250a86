// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"fmt"

	"golang.org/x/sys/unix"

	"hwvtpm/internal/memfault"
)

// step is what the ring goroutine does next.
type step int

const (
	stepWait   step = iota // nothing to do: poll
	stepHandle             // a request is in r.req
	stepEnd                // stopped or broken
)

// run is the ring goroutine: no channel, no allocation and, with EVENT_IDX,
// three system calls per request (poll, read of the kick, write of the call).
//
// A ring looks for work when it starts, without a kick: the kick for what is
// there may have gone to an earlier session of this or another back-end.
func (r *ring) run() {
	defer close(r.done)
	defer memfault.Arm()()
	for {
		switch r.fetch() {
		case stepHandle:
			if written := r.dev.Handle(&r.req); !r.complete(written) {
				return
			}
		case stepWait:
			if !r.wait() {
				return
			}
		case stepEnd:
			return
		}
	}
}

// fetch takes the next request off the ring, if it may.
func (r *ring) fetch() step {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.stopping:
		return stepEnd
	case !r.enabled || !r.mapped:
		return stepWait
	}
	ok, err := r.popLocked()
	switch {
	case err != nil:
		r.breakLocked(err)
		return stepEnd
	case ok:
		return stepHandle
	}
	return stepWait
}

// popLocked pops a chain and copies it in. When the ring is empty it asks for
// kicks and looks once more, since a driver that added work before it saw
// that wish has not kicked. If the second look finds nothing although
// EnableKick promised work, the driver plays games, and may kick.
func (r *ring) popLocked() (ok bool, err error) {
	defer memfault.Recover(&err)
	if ok, err = r.queue.Pop(&r.chain); err != nil {
		return false, err
	}
	if !ok {
		r.armed = true
		more, err := r.queue.EnableKick()
		if err != nil || !more {
			return false, err
		}
		if ok, err = r.queue.Pop(&r.chain); err != nil || !ok {
			return false, err
		}
	}
	if r.armed {
		r.armed = false
		r.queue.DisableKick()
	}
	r.inflight.begin(r.chain.Head())
	return true, r.copyInLocked()
}

// copyInLocked fills r.req from the chain: after this the device works on
// private bytes only.
func (r *ring) copyInLocked() error {
	readable, writable := r.chain.Readable(), r.chain.Writable()
	in := r.in[:min(uint64(readable), uint64(len(r.in)))]
	if _, err := r.chain.ReadAt(r.memory, in, 0); err != nil {
		return err
	}
	out := r.out[:min(uint64(writable), uint64(len(r.out)))]
	clear(out)
	r.req.Queue = r.index
	r.req.In, r.req.InTotal = in, readable
	r.req.Out, r.req.OutTotal = out, writable
	return nil
}

// complete gives the result of the request in r.req to the driver. It reports
// false when the ring ends here.
func (r *ring) complete(written uint32) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for !r.mapped && !r.stopping {
		r.mu.Unlock()
		ok := r.wait()
		r.mu.Lock()
		if !ok {
			return false
		}
	}
	if !r.mapped {
		r.log.Warn("result dropped: the ring is not in guest memory any more")
		return false
	}
	if err := r.pushLocked(written); err != nil {
		r.breakLocked(err)
		return false
	}
	return true
}

func (r *ring) pushLocked(written uint32) (err error) {
	defer memfault.Recover(&err)
	result := r.req.Out[:min(uint64(written), uint64(len(r.req.Out)))]
	if len(result) > 0 {
		if _, err := r.chain.WriteAt(r.queue, result, 0); err != nil {
			return err
		}
	}
	head := r.chain.Head()
	r.inflight.using(head)
	if err := r.queue.Push(&r.chain, uint32(len(result))); err != nil {
		return err
	}
	r.inflight.used(head)
	if r.queue.NeedCall() {
		signalEvent(r.call, r.scratch[:])
	}
	return nil
}

// breakLocked takes the ring out of service: at most one log line, and the error
// eventfd. The session lives on; the front-end must stop the ring. The guest may
// then start it again, so the lines are bounded per session.
func (r *ring) breakLocked(err error) {
	r.broken = err
	switch n := r.breaks.Add(1); {
	case n < maxComplaints:
		r.log.Error("ring broken", "error", err)
	case n == maxComplaints:
		r.log.Error("ring broken; further ones of this session are not logged", "error", err)
	}
	signalEvent(r.errs, r.scratch[:])
}

// wait blocks until a kick, or until the session goroutine changed something.
// It reports false if the ring broke.
func (r *ring) wait() bool {
	r.mu.Lock()
	kick := r.kick
	r.polled[0] = unix.PollFd{Fd: int32(kick.num()), Events: unix.POLLIN}
	r.polled[1] = unix.PollFd{Fd: int32(r.wake.n), Events: unix.POLLIN}
	r.mu.Unlock()
	// The session goroutine may close this kick descriptor from here on, and
	// its number may be reused. It has then signalled wake, so poll returns at
	// once, and the comparison below keeps us off a stranger's descriptor.
	err := pollForever(r.polled[:])

	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.breakLocked(fmt.Errorf("poll: %w", err))
		return false
	}
	if r.polled[1].Revents != 0 {
		drainEvent(r.wake, r.scratch[:])
	}
	if r.polled[0].Revents != 0 && r.kick == kick && !r.drainKickLocked() {
		r.kick = nil
		r.log.Warn("kick descriptor is dead; the ring waits for a new one")
	}
	return true
}

// drainKickLocked consumes a kick. An error condition without data (a pipe
// that nobody can write any more) would make poll return for ever.
func (r *ring) drainKickLocked() bool {
	return r.polled[0].Revents&unix.POLLIN != 0 && drainEvent(r.kick, r.scratch[:])
}

// pollForever is poll(2) without timeout. Signals are common: the Go runtime
// preempts goroutines by them.
func pollForever(fds []unix.PollFd) error {
	for {
		if _, err := unix.Poll(fds, -1); err != unix.EINTR {
			return err
		}
	}
}
