// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"fmt"

	"hwvtpm/internal/memfault"
	"hwvtpm/virtqueue"
)

// vring is what the front-end has said about one virtqueue. Only the session
// goroutine touches it, and it owns the three descriptors.
//
// Nothing of it is trusted or even looked at before the ring starts: sizes
// and addresses are the guest's choice, and their order is the front-end's.
//
//	            enabled, and a kick fd, whichever comes last
//	+---------+  -----------------------------------------> +---------+
//	| stopped |                                             | running |
//	+---------+ <-----------------------------------------  +---------+
//	     ^        GET_VRING_BASE, RESET_DEVICE, status 0,     |  ^  |
//	     |        end of session                     ENABLE 0 |  |  | bad ring
//	     |                                                    v  |  |
//	     |                                           +--------+  |  |
//	     +-------------------------------------------| paused |--+  |
//	     |                                           +--------+ ENABLE 1
//	     |                                           +--------+     |
//	     +-------------------------------------------| broken |<----+
//	                                                 +--------+
//
// ("Ring states"; stopped, started and disabled, started and enabled. "Started"
// is taken when the kick descriptor is set, not at its first event: an earlier
// back-end may have consumed that. A stopped ring forgets its kick descriptor.)
type vring struct {
	index   int
	size    uint32
	addr    vringAddr
	base    uint32
	enabled bool

	kick, call, errs *fd

	ring *ring // nil: stopped
}

var (
	errRunning  = errors.New("ring is running")
	errBroken   = errors.New("ring is broken and must be stopped first")
	errPolling  = errors.New("polling instead of a kick descriptor is not supported")
	errNotSetUp = errors.New("ring has no size, no address or no memory yet")
	errNoFDFlag = errors.New("descriptor does not match the invalid-descriptor flag")
)

// startError says that a ring could not start. It is the guest's doing more
// often than the front-end's, so it never ends the session.
type startError struct{ err error }

func (e *startError) Error() string { return fmt.Sprintf("start ring: %v", e.err) }
func (e *startError) Unwrap() error { return e.err }

// close releases the descriptors of a stopped ring.
func (v *vring) close() {
	for _, f := range []*fd{v.kick, v.call, v.errs} {
		f.close()
	}
	v.kick, v.call, v.errs = nil, nil, nil
}

// resume lets the ring run if all it waits for is there.
func (s *session) resume(v *vring) error {
	if v.ring != nil {
		if err := v.ring.failure(); err != nil && v.enabled {
			return &startError{fmt.Errorf("%w: %w", errBroken, err)}
		}
		v.ring.setEnabled(v.enabled)
		return nil
	}
	if !v.enabled || v.kick == nil {
		return nil
	}
	if err := s.start(v); err != nil {
		signalEvent(v.errs, make([]byte, 8))
		return &startError{err}
	}
	return nil
}

// start makes the ring of v run. The device learns of it last, so that each
// Start that succeeds has its Stop.
func (s *session) start(v *vring) error {
	if v.size == 0 || v.addr.desc == 0 || s.mem.memory == nil {
		return errNotSetUp
	}
	if v.size > uint32(s.cfg.MaxQueueSize) {
		return fmt.Errorf("size %d, limit %d", v.size, s.cfg.MaxQueueSize)
	}
	if s.transfer.running() {
		return errTransferRunning
	}
	var queue *virtqueue.Queue
	var inflight *inflightQueue
	var cfg virtqueue.Config
	err := memfault.Catch(func() (err error) {
		if inflight, err = s.openInflight(v); err != nil {
			return err
		}
		cfg = s.queueConfig(v)
		queue, err = virtqueue.New(s.mem.memory, cfg)
		return err
	})
	if err != nil {
		return err
	}
	if err := s.dev.Start(v.index, s.features, v.base); err != nil {
		queue.Close()
		return fmt.Errorf("device: %w", err)
	}
	r := &ring{
		index: v.index, dev: s.dev, log: s.log.With("vring", v.index), areas: areasOf(cfg),
		queue: queue, memory: s.mem.memory, inflight: inflight,
		kick: v.kick, call: v.call, errs: v.errs, breaks: &s.breaks,
	}
	if err := startRing(r); err != nil {
		queue.Close()
		s.dev.Stop(v.index)
		return err
	}
	v.ring = r
	s.log.Debug("ring started", "vring", v.index, "size", v.size, "base", v.base)
	return nil
}

// queueConfig translates to virtqueue's terms.
func (s *session) queueConfig(v *vring) virtqueue.Config {
	log, used := s.logFor(v)
	return virtqueue.Config{
		Size:     uint16(v.size),
		Features: s.features,
		Desc:     v.addr.desc, Driver: v.addr.avail, Device: v.addr.used,
		Base: v.base,
		Log:  log, LogUsed: used, LogUsedAddr: v.addr.log,
	}
}

// logFor returns the dirty log that v must use now, and whether it covers the
// used ring ("Migration").
func (s *session) logFor(v *vring) (*virtqueue.DirtyLog, bool) {
	if s.features&(1<<FeatureLogAll) == 0 {
		return nil, false
	}
	return s.dirty, v.addr.flags&vringFlagLog != 0
}

// stop ends the given rings, waiting for requests in flight, and returns when
// no goroutine of theirs is left. Stopped rings are skipped.
func (s *session) stop(vrings []vring) {
	for i := range vrings {
		if r := vrings[i].ring; r != nil {
			r.requestStop()
		}
	}
	for i := range vrings {
		v := &vrings[i]
		if v.ring == nil {
			continue
		}
		v.base = v.ring.join(s.cfg.StopGrace, s.ctx.Done())
		v.ring = nil
		s.dev.Stop(v.index)
		s.log.Debug("ring stopped", "vring", v.index, "base", v.base)
	}
	for i := range vrings {
		vrings[i].kick.close()
		vrings[i].kick = nil
	}
}

// suspended reports that no ring runs ("Suspended device state").
func (s *session) suspended() bool {
	for i := range s.vrings {
		if s.vrings[i].ring != nil {
			return false
		}
	}
	return true
}
